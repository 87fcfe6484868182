/* Runs compiled models in an application, in C: link with libpconvgen.so of a bundle, beside which TVM's libraries lie.
 *
 * `pconvgen compile --emit c-header` writes the shapes of a model as a header; docs/deploy.md has an example.
 */
#ifndef PCONVGEN_H
#define PCONVGEN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A tensor that lies dense in memory, the last dimension fastest. The types of elements are those of DLPack. */
typedef struct {
  const char *name;
  uint8_t type_code, type_bits; /* 2 and 32 for float, 0 and 64 for int64_t */
  int32_t rank;
  const int64_t *shape;
} pconvgen_tensor;

typedef struct pconvgen_model pconvgen_model;

#define PCONVGEN_API __attribute__((visibility("default")))

/* Loads a library; NULL where that fails. TVM_NUM_THREADS says how many threads it may use. */
PCONVGEN_API pconvgen_model *pconvgen_load(const char *library);

/* One inference. `inputs` and `outputs` point to each tensor's elements, at any alignment, as `described` has them, inputs
 * before outputs. 0, or what went wrong: see `pconvgen_error`. Threads that use one model take turns; to run at the same
 * time they load it once each. */
PCONVGEN_API int pconvgen_run(pconvgen_model *model, const pconvgen_tensor *described, int inputs_count,
                 int outputs_count, const void *const *inputs, void *const *outputs);

/* What went wrong last in this thread. */
PCONVGEN_API const char *pconvgen_error(void);

/* No thread may be using the model. */
PCONVGEN_API void pconvgen_free(pconvgen_model *model);

#ifdef __cplusplus
}
#endif
#endif
