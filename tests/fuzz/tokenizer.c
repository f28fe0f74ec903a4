/* tokenizer.c - fuzzed: the tokenizer's files, and the text it is given.
 * First byte of an input: which file of a good folder it stands for, or the text. */
#include "weights/tokenizer.h"
#include "base/file.h"
#include "fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char fuzz_name[] = "tokenizer";

typedef enum { MERGES, VOCAB, CONFIG, SPECIAL, WHOLE, TEXT, N_KINDS } Kind;
static const char *const name[TEXT] = {"merges.txt", "vocab.json", "tokenizer_config.json",
                                       "special_tokens_map.json", "tokenizer.json"};
static const char merges[] = "#version: 0.2\na b\nab c</w>\nt h\nth e</w>\n\xc3\x84 \xc2\xb0\n";
static const char config[] =
    "{\"add_prefix_space\": false, \"bos_token\": {\"__type\": \"AddedToken\", \"content\": "
    "\"<|startoftext|>\", \"lstrip\": false, \"normalized\": true, \"rstrip\": false}, "
    "\"eos_token\": \"<|endoftext|>\", \"pad_token\": \"<|endoftext|>\", \"model_max_length\": 77, "
    "\"tokenizer_class\": \"CLIPTokenizer\"}";
static const char special[] =
    "{\"bos_token\": \"<|startoftext|>\", \"eos_token\": \"<|endoftext|>\", \"pad_token\": \"!\", "
    "\"unk_token\": {\"content\": \"<|endoftext|>\", \"normalized\": true}}";
static char root[64], file[TEXT][128];
static Tokenizer *good; /* of the folder as it is, for texts */

static void add(Kind kind, const char *text)
{
    unsigned char all[8192] = {(unsigned char)kind};
    CHECK(strlen(text) + 1 < sizeof all);
    memcpy(all + 1, text, strlen(text));
    fuzz_add(all, strlen(text) + 1);
}

/* One symbol of the vocabulary as JSON text: GPT-2's characters for bytes, in CLIP's order. */
static int symbol(char out[8], int place)
{
    int code = place < 94 ? 33 + place : place < 106 ? 67 + place : 68 + place;
    if (code == '"' || code == '\\') return sprintf(out, "\\%c", code);
    if (code < 128) return sprintf(out, "%c", code);
    return sprintf(out, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
}

/* tokenizer.json as transformers writes it, of one merge. */
static void add_whole(void)
{
    static const char before[] =
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": ["
        "{\"id\": 513, \"content\": \"<|startoftext|>\", \"normalized\": true, \"lstrip\": false},"
        "{\"id\": 514, \"content\": \"<|endoftext|>\", \"normalized\": false}],"
        "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"},"
        "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\s+\"}, \"content\": \" \"},"
        "{\"type\": \"Lowercase\"}]},"
        "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\","
        "\"pattern\": {\"Regex\": \"'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|"
        "[^\\\\s\\\\p{L}\\\\p{N}]+\"}, \"behavior\": \"Removed\", \"invert\": true},"
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}]},"
        "\"decoder\": {\"type\": \"ByteLevel\"},"
        "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<|endoftext|>\","
        "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"</w>\", "
        "\"fuse_unk\": false, \"merges\": [\"a b\"], \"vocab\": {";
    static char text[32768];
    char one[8], *at = text + 1 + sprintf(text + 1, "%s", before);
    text[0] = WHOLE;
    for (int i = 0; i < 512; i++) {
        symbol(one, i % 256);
        at += sprintf(at, "\"%s%s\":%d,", one, i < 256 ? "" : "</w>", i);
    }
    at += sprintf(at, "\"ab\":512,\"<|startoftext|>\":513,\"<|endoftext|>\":514}}}");
    CHECK(!fuzz_one((unsigned char *)text, (size_t)(at - text))); /* a seed that is good */
    fuzz_add(text, (size_t)(at - text));
}

static void close_good(void) { tokenizer_close(&good); }

void fuzz_seeds(const char *folder)
{
    snprintf(root, sizeof root, "%s", folder);
    for (int k = 0; k < TEXT; k++) snprintf(file[k], sizeof file[k], "%s/%s", folder, name[k]);
    fuzz_put(file[MERGES], merges, strlen(merges));
    CHECK(!tokenizer_open(&good, root));
    atexit(close_good);
    add(MERGES, merges);
    add(MERGES, "a b\n");
    add(CONFIG, config);
    add(SPECIAL, special);
    add_whole();
    add(VOCAB, "{\"a\": 0, \"b\": 1, \"ab\": 2, \"<|startoftext|>\": 3, \"<|endoftext|>\": 4}");
    add(TEXT,
        "chest X-ray, the  patient's lungs 12 \xe2\x9c\x85\xf0\x9f\xab\x81 <|endoftext|> \xc4\xb0 "
        "e\xcc\x81 \xff\xfe <|startoftext|>&amp;");
}

void fuzz_repair(unsigned char *data, size_t size)
{
    if (size) data[0] = (unsigned char)(data[0] % N_KINDS);
}

/* Ids of both an agreeable text and the input itself must be within the vocabulary. */
static Status encode(const Tokenizer *t, const unsigned char *data, size_t size)
{
    int32_t ids[77];
    char *text = malloc(size + 1);
    CHECK(text);
    memcpy(text, data, size);
    text[size] = 0;
    Status s = OK;
    for (int turn = 0; turn < 2 && !s; turn++) {
        s = tokenizer_encode(t, turn ? text : "the abc of 12 lungs, a!", ids, turn ? 77 : 5);
        for (int i = 0; !s && i < (turn ? 77 : 5); i++)
            CHECK(ids[i] >= 0 && ids[i] < tokenizer_size(t));
    }
    free(text);
    return s;
}

Status fuzz_one(const unsigned char *data, size_t size)
{
    Tokenizer *t = NULL;
    if (!size) return OK;
    Kind kind = data[0] % N_KINDS;
    if (kind == TEXT) return encode(good, data + 1, size - 1);
    if (kind == WHOLE) remove(file[MERGES]); /* it would go first */
    fuzz_put(file[kind], data + 1, size - 1);
    Status s = tokenizer_open(&t, root);
    if (!s) s = encode(t, data + 1, size - 1);
    tokenizer_close(&t);
    remove(file[kind]);
    fuzz_put(file[MERGES], merges, strlen(merges));
    return s;
}
