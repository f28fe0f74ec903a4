/* kernels_choice.h - which implementation of a product runs on a GPU. See kernels.h.
 *
 * Convolutions and linear layers, forward, data and weight gradient, have several: our kernels, cut
 * into tiles and splits in different ways, and the vendor's libraries cuBLASLt and cuDNN, loaded
 * when first wanted. A stream decides once for each key (pass, shape, type, what follows) and keeps
 * to it. A library that cannot do what follows (ConvAfter) is none of the candidates; convolutions of
 * two tensors or of an image to be upsampled, and linear layers that gate their result, are ours.
 *
 * Results of one implementation are the same bits every time; those of two differ in the last bits.
 * So who wants equal bits again (a resumed run) hands the choices over with cuda_choice_add().
 * Where nothing takes gradients the choice must not depend on how many images there are: keys there
 * do not count them, and only our kernels are chosen from.
 */
#ifndef KERNELS_CHOICE_H
#define KERNELS_CHOICE_H
#include "kernels_base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    CHOOSE_OURS,   /* our kernel in the cut that gemm_host.cu predicts; the beginning */
    CHOOSE_KNOWN,  /* what cuda_choice_add() said; else as above */
    CHOOSE_FASTEST /* what it said; else the fastest, measured when a key is first met, in a launch
                      that is not recorded */
} Choosing;

enum { MOST_KEY = 112 };

typedef struct {
    char key[MOST_KEY]; /* "fwd bf16 bias 16 64x64x320-320 3x3/1 1,1,1,1 join 128 +v silu +r",
                           "fwd bf16 bias 65536 rows 320-2560 geglu" */
    char name[24];      /* "128x160/1", "cublaslt/0", "cudnn/1" */
    float us;           /* as measured; 0: not measured */
} Choice;

/* A new beginning: nothing is decided, and no launch before it is recorded. only: "cublaslt" or
 * "cudnn": whatever that library takes is its, whatever the rest says, also where nothing takes
 * gradients; else NULL or "". For tests and benches. */
void cuda_choose(Stream *s, Choosing how, const char *only);
/* Whether launches from now on belong to a graph that takes gradients. */
void cuda_choose_for_gradients(Stream *s, bool gradients);
/* False where name is none of ours, or a library's for a key that counts no images. A key that is
 * decided stays as it is. s NULL: adds nothing. A cut that its product cannot have is found out when
 * first run: the predicted one runs instead. */
bool cuda_choice_add(Stream *s, const Choice *c);
/* The i-th choice that has been used by a launch of this stream; false behind the last. */
bool cuda_choice_used(const Stream *s, int i, Choice *c);
/* What went wrong with a choice and was done by our kernel as predicted instead: the first line
 * since the last call that returned one, or since cuda_choose(); NULL: nothing. */
const char *cuda_choice_trouble(Stream *s);

/* "cuBLASLt 13.1.0, cuDNN 9.19.0"; a library that cannot be loaded is left out and *why says why,
 * of the last one ("" if none). Loads them: from the folder $EQ_LIBRARIES where that is set. */
void cuda_library_versions(char text[96], const char **why);

#ifdef __cplusplus
}
#endif
#endif
