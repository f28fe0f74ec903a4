/* safetensors.h - named tensors in a file: the format in which weights are published.
 *
 *   8 bytes  length N of the header, little endian, at most 100,000,000
 *   N bytes  JSON object, from '{' to '}', then spaces: name -> {dtype, shape, data_offsets},
 *            and "__metadata__" -> {key: text}
 *   the rest the tensors, row-major, one behind the other without hole, overlap or leftover
 *
 * A file is checked by all of these rules before its first tensor is read; files that are
 * something else (pickle, zip, GGUF, ...) are refused by that name. Nothing is mapped into
 * memory: a file that shrinks or is replaced meanwhile gives an error, not a signal. Values are
 * not checked: NaN and infinity are the reader's to judge.
 *
 * Weights in several shards are opened by their index, NAME.safetensors.index.json, and then are
 * one SafeFile. Index and shards must agree: every entry names a file beside the index, and each
 * tensor lies in the shard that the index says, in no other, and in the index.
 *
 * Errors name file and tensor: `a.safetensors: tensor "x": found [320, 768], expected [768, 320]`.
 * An open SafeFile may be read from several threads.
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H
#include "base/arena.h"
#include "base/file.h"

/*    name     bits  the engine reads it as */
#define SAFE_DTYPES(X)                                                                             \
    X(F32,     32,   'f')                                                                          \
    X(F16,     16,   'f')                                                                          \
    X(BF16,    16,   'f')                                                                          \
    X(F64,     64,   'f')                                                                          \
    X(I64,     64,   'i')                                                                          \
    X(I32,     32,   'i')                                                                          \
    X(U64,     64,   0)                                                                            \
    X(U32,     32,   0)                                                                            \
    X(I16,     16,   0)                                                                            \
    X(U16,     16,   0)                                                                            \
    X(I8,      8,    0)                                                                            \
    X(U8,      8,    0)                                                                            \
    X(BOOL,    8,    0)                                                                            \
    X(C64,     64,   0)                                                                            \
    X(F8_E5M2, 8,    0)                                                                            \
    X(F8_E4M3, 8,    0)                                                                            \
    X(F8_E8M0, 8,    0)                                                                            \
    X(F6_E2M3, 6,    0)                                                                            \
    X(F6_E3M2, 6,    0)                                                                            \
    X(F4,      4,    0)

typedef enum {
#define SAFE_ENUM(name, bits, kind) SAFE_##name,
    SAFE_DTYPES(SAFE_ENUM)
#undef SAFE_ENUM
    N_SAFE_DTYPES
} SafeDtype;

const char *safe_dtype_name(SafeDtype d);
int         safe_dtype_bits(SafeDtype d);
char        safe_dtype_kind(SafeDtype d); /* 'f': for st_read_f32, 'i': for st_read_i32, else 0 */

enum { SAFE_MAX_DIMS = 8, SAFE_MAX_NAME = 1024, SAFE_SHAPE_TEXT = 200 };

typedef struct {
    const char *name;
    SafeDtype   dtype;
    int         ndim;               /* 0 for a single number */
    int64_t     dim[SAFE_MAX_DIMS]; /* 0 or more each        */
    size_t      count;              /* elements              */
    uint64_t    offset, bytes;      /* in the file           */
    const char *path;               /* the file, a shard's its own */
    int         fd;
} SafeTensor;

typedef struct { const char *key, *value; } SafeMeta;

typedef struct SafeFile SafeFile;
struct SafeFile {
    char       *path;         /* owned; of shards: their index */
    int         fd;           /* owned; valid while path is set; -1: of shards */
    Arena       arena;        /* owned: everything below */
    int         n, n_meta;
    SafeTensor *tensor;       /* [n] in the order of the data */
    SafeTensor **by_name;     /* [n] sorted by strcmp */
    SafeMeta   *meta;         /* [n_meta] sorted by key */
    SafeFile   *shard;        /* owned: [n_shard], NULL for a single file */
    int         n_shard;
};                            /* starts as {0} */

Status st_open(SafeFile *f, const char *path); /* a file, or an index of shards */
bool   st_is_index(const char *path);          /* by its name */
Status st_open_shards(SafeFile *f, const char *path); /* what st_open does with an index */
void   st_close(SafeFile *f);

const SafeTensor *st_find(const SafeFile *f, const char *name);         /* NULL if absent */
const char       *st_metadata(const SafeFile *f, const char *key);      /* NULL if absent */
void st_shape_text(char text[SAFE_SHAPE_TEXT], int ndim, const int64_t *dim); /* "[320, 768]" */

/* The tensor of this name, which must be there and have this shape. */
Status st_expect(const SafeTensor **t, const SafeFile *f, const char *name, int ndim,
                 const int64_t *dim);

/* Whole tensors (count elements, file order) or elements first .. first + n - 1 of one. Floats
 * from F32, F16, BF16, F64; integers from I32, I64, refused where they do not fit. */
Status st_read_f32(const SafeFile *f, const SafeTensor *t, float *out);
Status st_read_i32(const SafeFile *f, const SafeTensor *t, int32_t *out);
Status st_read_f32_part(const SafeFile *f, const SafeTensor *t, size_t first, size_t n, float *out);
Status st_read_bytes(const SafeFile *f, const SafeTensor *t, uint64_t first, size_t n, void *out);

/* What a file is to hold; also what a model needs of one. */
typedef struct {
    const char *name;
    SafeDtype   dtype;              /* for writing */
    int         ndim;
    int64_t     dim[SAFE_MAX_DIMS];
} SafeSpec;

/* The file must hold each of the n tensors with its shape, and nothing else but names for which
 * ignore() (may be NULL) is true. Lists what is missing, misshapen and unexpected in one line. */
Status st_match(const SafeFile *f, int n, const SafeSpec *want, bool (*ignore)(const char *name));

/* Writing: begin with all specs, then the values of each tensor in that order, in pieces of any
 * size, then commit. The file appears whole at commit, or not at all; on a failure, and to give up,
 * st_write_abandon. Data lie by falling element size, so that all are aligned.
 * st_write_f32 converts to F32, F16 or BF16; a finite value beyond their range is ERR_NUMERIC.
 * st_write_i32 converts to I32 or I64. st_write_bytes takes elements as they are in the file. */
typedef struct SafeSlot SafeSlot;
typedef struct {
    OutFile   out;
    SafeSlot *slot;    /* owned: [n] */
    int       n, now;  /* the tensor being written */
    uint64_t  done;    /* its bytes so far */
} SafeWriter;          /* starts as {0} */

Status st_write_begin(SafeWriter *w, const char *path, int n, const SafeSpec *spec, int n_meta,
                      const SafeMeta *meta);
Status st_write_f32(SafeWriter *w, const float *v, size_t n);
Status st_write_i32(SafeWriter *w, const int32_t *v, size_t n);
Status st_write_bytes(SafeWriter *w, const void *v, size_t bytes);
Status st_write_commit(SafeWriter *w);
void   st_write_abandon(SafeWriter *w);
#endif
