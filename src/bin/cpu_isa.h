/* bin/cpu_isa.h - the values of --cpu-isa. */
#ifndef BATON_BIN_CPU_ISA_H
#define BATON_BIN_CPU_ISA_H

#include <stddef.h>
#include <string.h>

#define CPU_ISA_CHOICES                                            \
    "best|generic|avx2|avxvnni|avx512|avx512bf16|amxint8|amxbf16|" \
    "amxplain|neon|neondot|neoni8mm"

/* As device_options and roofline_measure want it: NULL for the best. */
static inline const char *cpu_isa_limit(const char *choice)
{
    return strcmp(choice, "best") == 0 ? NULL : choice;
}

#endif
