/* Counts the instructions that an emulated aarch64 program executes between two markers, by coarse class.
 *
 * A plugin of qemu-user (-plugin count_instructions.so,out=FILE). The markers are system calls prctl(MARKER, 1) and
 * prctl(MARKER, 0); at the second one a line of JSON goes to FILE: instructions by class, and every block of code that
 * ran as [times, address, code in hex]. Every translated block is classified once, when qemu translates it, and after
 * that costs one inlined addition each time it runs.
 *
 * Distributions ship qemu without its plugin header, so the part in use is declared here: version 1 of the interface,
 * which qemu 6 to 8 load.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*translated_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*system_call_callback)(qemu_plugin_id_t, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t,
                                     uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_callback);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, system_call_callback);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { MARKER = 0x70637667, SYS_PRCTL = 167 };
enum { VECTOR_FMA, VECTOR_OTHER, LOAD, STORE, BRANCH, OTHER, CLASSES };
static const char *const names[CLASSES] = {"vector_fma", "vector_other", "load", "store", "branch", "other"};

/* One translated block. qemu may hold pointers to `runs` for as long as the program lives, so blocks are never freed. */
struct block {
  uint64_t runs, runs_at_start, address;
  uint32_t instructions[CLASSES];
  struct block *next;
  size_t length;
  uint32_t code[];
};
static struct block *blocks;
static FILE *out;

static int is_load(uint32_t code) {
  int vector = code >> 26 & 1, opc = code >> 22 & 3;
  if ((code & 0x3b000000) == 0x18000000) return 1;                 /* from an address in the code */
  if ((code & 0x3a000000) == 0x28000000) return opc & 1;           /* pairs */
  if ((code & 0x3a000000) == 0x38000000 && !vector) return opc != 0; /* single, also sign-extending */
  return opc & 1;                                                  /* vectors, structures, exclusives */
}

static int is_vector_fma(uint32_t code) {
  return (code & 0xbf20fc00) == 0x0e20cc00 ||  /* fmla, fmls of float and double */
         (code & 0xbf80b400) == 0x0f801000 ||  /* the same by element */
         (code & 0xbf60fc00) == 0x0e400c00 ||  /* of half */
         (code & 0xbfc0b400) == 0x0f001000;    /* of half by element */
}

/* By the op0 field, as the top-level table of the A64 encodings is. */
static int class_of(uint32_t code) {
  uint32_t group = code >> 25 & 15;
  if ((group & 5) == 4) return is_load(code) ? LOAD : STORE;
  if ((group & 7) == 7) return is_vector_fma(code) ? VECTOR_FMA : VECTOR_OTHER;
  if ((group & 14) == 10) return BRANCH;
  return OTHER;
}

/* qemu translates under a lock, so the list needs none. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t length = qemu_plugin_tb_n_insns(tb);
  struct block *block = calloc(1, sizeof *block + length * sizeof block->code[0]);
  if (!block) abort();
  block->address = qemu_plugin_tb_vaddr(tb);
  block->length = length;
  for (size_t i = 0; i < length; i++) {
    memcpy(&block->code[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof block->code[i]);
    block->instructions[class_of(block->code[i])]++;
  }
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->runs, 1);
}

static void start(void) {
  for (struct block *block = blocks; block; block = block->next) block->runs_at_start = block->runs;
}

static void stop(void) {
  uint64_t counts[CLASSES] = {0};
  for (struct block *block = blocks; block; block = block->next)
    for (int class = 0; class < CLASSES; class++)
      counts[class] += (block->runs - block->runs_at_start) * block->instructions[class];
  for (int class = 0; class < CLASSES; class++)
    fprintf(out, "%s\"%s\": %" PRIu64, class ? ", " : "{\"classes\": {", names[class], counts[class]);
  fprintf(out, "}, \"blocks\": [");
  const char *separator = "";
  for (struct block *block = blocks; block; block = block->next) {
    if (block->runs == block->runs_at_start) continue;
    fprintf(out, "%s[%" PRIu64 ", %" PRIu64 ", \"", separator, block->runs - block->runs_at_start, block->address);
    for (size_t i = 0; i < block->length; i++) fprintf(out, "%08" PRIx32, block->code[i]);
    fprintf(out, "\"]");
    separator = ", ";
  }
  fprintf(out, "]}\n");
  fflush(out);
}

static void system_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t option, uint64_t begins, uint64_t c,
                        uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != SYS_PRCTL || (uint32_t)option != MARKER) return;
  if (begins)
    start();
  else
    stop();
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc,
                                                              char **argv) {
  (void)info;
  if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) return -1;
  out = fopen(argv[0] + 4, "a");
  if (!out) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, system_call);
  return 0;
}
