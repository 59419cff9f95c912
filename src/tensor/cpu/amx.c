#include "tensor/cpu/amx.h"

#include "tensor/cpu/kernels.h"

#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { /* CPUID leaf 7, EDX */
       BIT_BF16 = 1 << 22,
       BIT_TILE = 1 << 24,
       BIT_INT8 = 1 << 25,
};

enum {
    XCR0_TILES = 3 << 17,   /* their shapes and their data */
    REQUEST_STATE = 0x1023, /* ARCH_REQ_XCOMP_PERM */
    STATE_TILE_DATA = 18,   /* XFEATURE_XTILEDATA */
};

static struct {
    pthread_once_t once;
    bool int8, bf16;
    const char *refusal;
} amx = {.once = PTHREAD_ONCE_INIT};

/* The state components that the kernel has turned on. */
static unsigned xcr0(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static void amx_ask(void)
{
    unsigned a, b, c, has;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &has) || !(has & BIT_TILE)) return;
    if ((xcr0() & XCR0_TILES) != XCR0_TILES) {
        amx.refusal = "the kernel does not keep tiles";
        return;
    }
    if (syscall(SYS_arch_prctl, REQUEST_STATE, STATE_TILE_DATA) != 0) {
        amx.refusal = "the kernel gives no permission";
        return;
    }
    amx.int8 = has & BIT_INT8 && kernels_amxint8.check();
    amx.bf16 = has & BIT_BF16 && amx.int8 && kernels_amxbf16.check();
    if ((has & BIT_INT8 && !amx.int8) || (has & BIT_BF16 && !amx.bf16))
        amx.refusal = "its products are not what they should be";
}

bool amx_has_int8(void)
{
    pthread_once(&amx.once, amx_ask);
    return amx.int8;
}

bool amx_has_bf16(void)
{
    pthread_once(&amx.once, amx_ask);
    return amx.bf16;
}

const char *amx_refusal(void)
{
    pthread_once(&amx.once, amx_ask);
    return amx.refusal;
}
