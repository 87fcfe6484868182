// Calls one kernel of a library of kernels: run_kernel LIBRARY KERNEL ARGUMENTS OUTPUT
//
// ARGUMENTS is a container of tensors (pconvgen/devices/container.py), the last of which is the output. Every tensor
// lies between inaccessible pages: first all at the start of their pages, then, once more, all at the end. OUTPUT gets
// the elements of the output of both calls. This program stands for TVM's runtime, which there is none of for 32-bit ARM.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tvm/ffi/c_api.h>

enum { kPage = 4096, kAlignment = 64, kMaxTensors = 16, kMaxRank = 8, kFill = 0xFF };

typedef struct {
  DLTensor tensor;
  int64_t shape[kMaxRank];
  size_t bytes;
  unsigned char* given;  // the elements of the file
} Argument;

typedef struct {
  unsigned char* inner;
  size_t inner_bytes;
  unsigned char* data;
} Guarded;

static void Fail(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static size_t RoundUp(size_t value, size_t to) { return (value + to - 1) / to * to; }

static Guarded Allocate(size_t bytes, int at_end) {
  Guarded guarded;
  size_t size = RoundUp(bytes ? bytes : 1, kAlignment);
  guarded.inner_bytes = RoundUp(size, kPage);
  unsigned char* start = mmap(NULL, guarded.inner_bytes + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED || mprotect(start + kPage, guarded.inner_bytes, PROT_READ | PROT_WRITE)) Fail("no memory");
  guarded.inner = start + kPage;
  memset(guarded.inner, kFill, guarded.inner_bytes);
  guarded.data = guarded.inner + (at_end ? guarded.inner_bytes - size : 0);
  return guarded;
}

static void CheckIntact(const Guarded* guarded, size_t bytes) {
  for (unsigned char* byte = guarded->inner; byte < guarded->inner + guarded->inner_bytes; ++byte)
    if ((byte < guarded->data || byte >= guarded->data + bytes) && *byte != kFill) Fail("wrote outside of a buffer");
}

// What TVM's runtime puts into the library's variables of these names.
typedef struct {
  void* sync_handle;
  int32_t num_task;
} ParallelGroup;

static int ParallelLaunch(int (*task)(int, ParallelGroup*, void*), void* closure, int tasks) {
  ParallelGroup group = {NULL, tasks ? tasks : 1};
  for (int i = 0; i < group.num_task; ++i)
    if (task(i, &group, closure)) return -1;
  return 0;
}

static void* AllocWorkspace(int device, int id, uint64_t bytes, int code, int bits) {
  return Allocate(bytes, 1).data;
}

static int FreeWorkspace(int device, int id, void* data) { return 0; }

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  for (int32_t i = 0; i < count; ++i) fputs(parts[i], stderr);
  Fail(kind);
}

static void Provide(void* library, const char* name, void* function) {
  void** variable = dlsym(library, name);
  if (variable) *variable = function;
}

static void Read(FILE* file, void* to, size_t bytes) {
  if (fread(to, 1, bytes, file) != bytes) Fail("the arguments are cut short");
}

static uint32_t ReadArguments(const char* path, Argument* arguments) {
  FILE* file = fopen(path, "rb");
  uint32_t count, rank;
  if (!file) Fail("no arguments");
  Read(file, &count, sizeof count);
  if (count > kMaxTensors) Fail("too many arguments");
  for (Argument* argument = arguments; argument < arguments + count; ++argument) {
    DLTensor* tensor = &argument->tensor;
    memset(tensor, 0, sizeof *tensor);
    Read(file, &tensor->dtype, sizeof tensor->dtype);
    Read(file, &rank, sizeof rank);
    if (rank > kMaxRank) Fail("too many dimensions");
    Read(file, argument->shape, rank * sizeof(int64_t));
    tensor->device.device_type = kDLCPU;
    tensor->ndim = rank;
    tensor->shape = argument->shape;
    argument->bytes = tensor->dtype.bits / 8;
    for (uint32_t i = 0; i < rank; ++i) argument->bytes *= argument->shape[i];
    argument->given = malloc(argument->bytes + 1);
    Read(file, argument->given, argument->bytes);
  }
  fclose(file);
  return count;
}

int main(int argc, char** argv) {
  if (argc != 5) Fail("usage: run_kernel LIBRARY KERNEL ARGUMENTS OUTPUT");
  void* library = dlopen(argv[1], RTLD_NOW);
  if (!library) Fail(dlerror());
  Provide(library, "__TVMBackendParallelLaunch", ParallelLaunch);
  Provide(library, "__TVMBackendAllocWorkspace", AllocWorkspace);
  Provide(library, "__TVMBackendFreeWorkspace", FreeWorkspace);
  char symbol[256];
  snprintf(symbol, sizeof symbol, "__tvm_ffi_%s", argv[2]);
  int (*kernel)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*) = dlsym(library, symbol);
  if (!kernel) Fail(dlerror());
  static Argument arguments[kMaxTensors];
  int32_t count = ReadArguments(argv[3], arguments);
  FILE* output = fopen(argv[4], "wb");
  if (!output) Fail("cannot write the output");
  for (int at_end = 0; at_end < 2; ++at_end) {
    Guarded guarded[kMaxTensors];
    TVMFFIAny values[kMaxTensors], result;
    memset(values, 0, sizeof values);
    memset(&result, 0, sizeof result);
    for (int32_t i = 0; i < count; ++i) {
      guarded[i] = Allocate(arguments[i].bytes, at_end);
      memcpy(guarded[i].data, arguments[i].given, arguments[i].bytes);
      if (i + 1 < count) mprotect(guarded[i].inner, guarded[i].inner_bytes, PROT_READ);
      arguments[i].tensor.data = guarded[i].data;
      values[i].type_index = kTVMFFIDLTensorPtr;
      values[i].v_ptr = &arguments[i].tensor;
    }
    if (kernel(NULL, values, count, &result)) Fail("the kernel failed");
    volatile float denormal = 0x1p-140f;
    if (!(denormal * 0.5f > 0)) Fail("the kernel left its mode to its caller, in which denormal numbers are zero");
    CheckIntact(&guarded[count - 1], arguments[count - 1].bytes);
    fwrite(guarded[count - 1].data, 1, arguments[count - 1].bytes, output);
  }
  return fclose(output) != 0;
}
