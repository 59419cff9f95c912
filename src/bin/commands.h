/* bin/commands.h - the commands of baton. argv[0] is the command's name; the
 * result is the exit status: 0, 1 (failed, said on stderr), 2 (bad usage). */
#ifndef BATON_BIN_COMMANDS_H
#define BATON_BIN_COMMANDS_H

int launch_server_main(int argc, char **argv);
int up_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int bench_attention_main(int argc, char **argv);
int bench_engine_main(int argc, char **argv);
int bench_roofline_main(int argc, char **argv);
int bench_tokenizer_main(int argc, char **argv);
int bench_xfer_main(int argc, char **argv);
int doctor_main(int argc, char **argv);
int inspect_main(int argc, char **argv);
int quantize_main(int argc, char **argv);
int store_main(int argc, char **argv);

#endif
