/* tokenizer_json.h - CLIP's tokenizer from a tokenizer.json, the single file that newer transformers
 * write in place of vocab.json and merges.txt. */
#ifndef TOKENIZER_JSON_H
#define TOKENIZER_JSON_H
#include "base/status.h"
#include <jansson.h>
#include <stddef.h>

/* vocab: token -> id; merges: the text of a merges.txt; added: as a tokenizer_config.json's
 * added_tokens_decoder, id -> token. All owned by the caller. A file whose normalizer, cutting or
 * model would not give CLIP's ids is refused by the name of the key. */
Status tokenizer_json_read(json_t **vocab, char **merges, size_t *size, json_t **added,
                           const char *path);
#endif
