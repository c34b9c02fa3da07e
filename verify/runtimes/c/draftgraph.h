/*
 * draftgraph.h: drafts for block diffusion language models, for runtimes written in C or C++.
 *
 * One header, C99, nothing but libc headers and libm (link with -lm), no allocation: memory comes from an arena that the
 * caller hands in. numpy_core.py and torch_core.py decide the same; docs/runtime-c.md says how it is used and tested.
 *
 *   static drafts     dg_load once; then dg_rank, dg_fill, a forward of yours, dg_accept, and again
 *   informed drafts   dg_informed_init once; then a forward of yours, dg_informed_learn, _walk, _propose, and again
 *
 * Shapes: L positions of a block, V tokens, N nodes of the graph with the root at 0, S pairs of the largest formula, J
 * vocabulary ranks. All arrays are row-major without gaps. One call is about one sequence; a batch is a loop. Tokens and
 * offsets are int32_t, logits float, confidences and log-odds double. A state is a block of L tokens, some of them the
 * mask token.
 *
 * A function that can fail returns DG_OK (0) or another dg_status, and says why in dg_error where one is handed in
 * (dg_message makes a sentence of it). Whatever the bytes, logits and tokens are, nothing beyond the arrays is read or
 * written. Sizes that the caller states of his own arrays are believed.
 *
 * Confidences are the float64 softmax of the logits without the mask token: 1 / sum(exp(logit - best logit)), summed by
 * ascending token id. Ties: the lower position, the lower token id.
 */
#ifndef DRAFTGRAPH_H
#define DRAFTGRAPH_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "draftgraph.h looks for NaN and infinities; compile the file that includes it without -ffast-math"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the static buffers that dg_load reads. */
#define DG_BUFFERS_VERSION "2"
#define DG_TIE_RULE \
    "probability descending, then position ascending; token probability descending, then token id ascending"

#define DG_MAX_FILE ((size_t)1 << 26)
#define DG_MAX_HEADER ((size_t)1 << 16)
#define DG_MAX_NODES 65536
#define DG_MAX_EDGES (1 << 20)
#define DG_MAX_BLOCK 32767
#define DG_MAX_TOP_J 32767

/* Pairs in a learned set at most, forwards that are remembered, and forwards whose states are compared. */
#define DG_LARGEST_SET 4
#define DG_KEPT_FORWARDS 4
#define DG_COMPARED_FORWARDS 2
/* Beyond these log-odds float64 does not tell p apart from 0 or 1. */
#define DG_LOG_ODDS_LIMIT 36.0

/* ------------------------------------------------------------------------------------------------ errors, memory */

typedef enum {
    DG_OK = 0,
    DG_FORMAT,   /* the bytes are no static buffers, or break a rule of theirs */
    DG_MEMORY,   /* the arena is too small; dg_arena.needed says how much it takes so far */
    DG_ARGUMENT, /* a size or a setting that cannot be */
    DG_NUMBER,   /* NaN, an infinity, a confidence outside 0 to 1, or a mask token where none can be */
    DG_MISMATCH  /* the graph was calibrated for something else */
} dg_status;

/* What went wrong: at which place (a name, and an index of it or -1), what was expected, and what number came. */
typedef struct {
    dg_status status;
    const char *where;
    int64_t index;
    const char *expected;
    int has_found;
    int64_t found;
} dg_error;

static inline int dg__fail(dg_error *error, dg_status status, const char *where, int64_t index, const char *expected) {
    if (error) {
        error->status = status;
        error->where = where;
        error->index = index;
        error->expected = expected;
        error->has_found = 0;
        error->found = 0;
    }
    return (int)status;
}

static inline int dg__found(dg_error *error, dg_status status, const char *where, int64_t index, const char *expected,
                            int64_t found) {
    (void)dg__fail(error, status, where, index, expected);
    if (error) {
        error->has_found = 1;
        error->found = found;
    }
    return (int)status;
}

static inline size_t dg__put(char *out, size_t size, size_t at, const char *text) {
    for (; *text; text++)
        if (at + 1 < size) out[at++] = *text;
    return at;
}

static inline size_t dg__put_number(char *out, size_t size, size_t at, int64_t number) {
    char digits[24];
    size_t place = sizeof digits;
    uint64_t left = number < 0 ? (uint64_t)0 - (uint64_t)number : (uint64_t)number;
    digits[--place] = 0;
    do {
        digits[--place] = (char)('0' + (int)(left % 10));
        left /= 10;
    } while (left);
    if (number < 0) digits[--place] = '-';
    return dg__put(out, size, at, digits + place);
}

/* One sentence about an error into out (size bytes, cut where it is longer), always ended by 0; returns out. */
static inline const char *dg_message(const dg_error *error, char *out, size_t size) {
    size_t at = 0;
    if (!size) return out;
    at = dg__put(out, size, at, error->where);
    if (error->index >= 0) {
        at = dg__put(out, size, at, "[");
        at = dg__put_number(out, size, at, error->index);
        at = dg__put(out, size, at, "]");
    }
    at = dg__put(out, size, at, ": expected ");
    at = dg__put(out, size, at, error->expected);
    if (error->has_found) {
        at = dg__put(out, size, at, ", found ");
        at = dg__put_number(out, size, at, error->found);
    }
    out[at] = 0;
    return out;
}

/*
 * Memory that is handed out in pieces and never taken back. An arena without memory (NULL, 0) only counts: hand one to
 * dg_ranks_init or dg_informed_init, which then answer DG_MEMORY, and read `needed`. dg_load needs no more than
 * dg_load_bytes.
 */
typedef struct {
    unsigned char *memory;
    size_t size;
    size_t used;
    size_t needed;
} dg_arena;

static inline dg_arena dg_arena_of(void *memory, size_t size) {
    dg_arena arena;
    arena.memory = (unsigned char *)memory;
    arena.size = memory ? size : 0;
    arena.used = 0;
    arena.needed = 0;
    return arena;
}

/* count pieces of each bytes, aligned to 8; NULL where they do not fit, and then nothing fits any more. */
static inline void *dg__take(dg_arena *arena, size_t count, size_t each) {
    size_t skip, bytes;
    if (each && count > (SIZE_MAX / 4) / each) {
        arena->needed = SIZE_MAX;
        return NULL;
    }
    bytes = count * each;
    if (arena->needed > SIZE_MAX / 4) return NULL;
    arena->needed += bytes + 8;
    if (arena->needed - bytes - 8 > arena->used) return NULL; /* an earlier piece did not fit */
    skip = arena->memory ? (size_t)((8 - ((uintptr_t)(arena->memory + arena->used) & 7)) & 7) : 0;
    if (arena->size < arena->used || arena->size - arena->used < bytes + 8) return NULL;
    arena->used += bytes + 8;
    return arena->memory + (arena->used - bytes - 8) + skip;
}

#define DG__TAKE(arena, type, count) ((type *)dg__take((arena), (size_t)(count), sizeof(type)))

/*
 * Heap sort of numbers by a strict order: no recursion, no worst case, and whatever the order answers (NaN), only places
 * within `items` are touched.
 */
typedef int (*dg__order)(const void *context, int32_t left, int32_t right);

static inline void dg__sink(int32_t *items, size_t at, size_t count, dg__order before, const void *context) {
    while (2 * at + 1 < count) {
        size_t child = 2 * at + 1;
        int32_t held;
        if (child + 1 < count && before(context, items[child], items[child + 1])) child++;
        if (!before(context, items[at], items[child])) return;
        held = items[at];
        items[at] = items[child];
        items[child] = held;
        at = child;
    }
}

static inline void dg__sort(int32_t *items, size_t count, dg__order before, const void *context) {
    size_t at;
    for (at = count / 2; at-- > 0;) dg__sink(items, at, count, before, context);
    for (at = count; at-- > 1;) {
        int32_t held = items[0];
        items[0] = items[at];
        items[at] = held;
        dg__sink(items, 0, at, before, context);
    }
}

/* --------------------------------------------------------------------------------------------------- the graph */

/*
 * A draft graph. The arrays are those of verify/graph/buffers.py, whose names they have; they lie in the arena, so the
 * file's bytes may go. Texts are UTF-8, ended by 0; NULL where the file has none.
 */
typedef struct {
    int32_t nodes;       /* N, the root included */
    int32_t pairs;       /* S, at least 1 */
    int32_t edges;       /* E */
    int32_t max_formula; /* pairs of the largest formula, 0 where the graph is its root */
    int32_t block_length, top_j;
    const int32_t *formulas; /* [N, S, 2], ranks from 1, padded with 0 */
    const int32_t *lengths;  /* [N] */
    const int32_t *depth;    /* [N] */
    const int32_t *parent_ptr, *parent_index, *child_ptr, *child_index; /* [N + 1], [E] */
    const int32_t *max_i, *max_j, *min_masked, *completes_at;           /* [N] */
    const int32_t *truncation;     /* [N], an order of which every beginning is a graph */
    const float *truncation_value; /* [N], accepted drafts of the beginning up to there; NaN without truncation_split */
    const char *model, *model_revision, *policy, *cache, *temperature, *schedule, *truncation_split;
} dg_graph;

typedef struct {
    const unsigned char *at;
    size_t length;
} dg__text;

typedef struct {
    const unsigned char *begin, *at, *end;
    dg_error *error;
} dg__reader;

static inline int dg__bad(dg__reader *reader, const char *expected) {
    return dg__fail(reader->error, DG_FORMAT, "header, byte", (int64_t)(reader->at - reader->begin), expected);
}

static inline int dg__is(dg__text text, const char *word) {
    return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

static inline void dg__space(dg__reader *reader) {
    while (reader->at < reader->end &&
           (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\n' || *reader->at == '\r'))
        reader->at++;
}

/* One mark of JSON, after white space; 0 where it is not there. */
static inline int dg__mark(dg__reader *reader, char mark) {
    dg__space(reader);
    if (reader->at >= reader->end || *reader->at != (unsigned char)mark) return 0;
    reader->at++;
    return 1;
}

/* Bytes of the UTF-8 character at `at`, 0 where it is none: too long a form, a surrogate, or beyond U+10FFFF. */
static inline size_t dg__utf8(const unsigned char *at, const unsigned char *end) {
    size_t more, k;
    unsigned int code;
    if (at[0] < 0x80) return 1;
    if (at[0] < 0xC2 || at[0] > 0xF4) return 0;
    more = at[0] < 0xE0 ? 1u : at[0] < 0xF0 ? 2u : 3u;
    if ((size_t)(end - at) <= more) return 0;
    code = at[0] & (0x3Fu >> more);
    for (k = 1; k <= more; k++) {
        if ((at[k] & 0xC0) != 0x80) return 0;
        code = code << 6 | (at[k] & 0x3Fu);
    }
    if ((more == 2 && (code < 0x800 || (code >= 0xD800 && code < 0xE000))) || (more == 3 && code < 0x10000)) return 0;
    return code > 0x10FFFF ? 0 : more + 1;
}

/* A text between quotes, as it is written. Of the escapes only \" \\ \/ are known: no others are ever needed here. */
static inline int dg__string(dg__reader *reader, dg__text *text) {
    if (!dg__mark(reader, '"')) return dg__bad(reader, "a text in quotes");
    text->at = reader->at;
    while (reader->at < reader->end) {
        size_t bytes;
        if (*reader->at == '"') {
            text->length = (size_t)(reader->at - text->at);
            reader->at++;
            return DG_OK;
        }
        if (*reader->at == '\\') {
            unsigned char next = reader->end - reader->at > 1 ? reader->at[1] : 0;
            if (next != '"' && next != '\\' && next != '/') return dg__bad(reader, "no escape but of a quote or slash");
            reader->at += 2;
            continue;
        }
        if (*reader->at < 0x20) return dg__bad(reader, "no control character in a text");
        bytes = dg__utf8(reader->at, reader->end);
        if (!bytes) return dg__bad(reader, "UTF-8");
        reader->at += bytes;
    }
    return dg__bad(reader, "the end of a text");
}

/* Digits without sign, point, exponent or leading zero; at most `most`, which is below 2^53. */
static inline int dg__digits(dg__reader *reader, int64_t most, int64_t *number) {
    const unsigned char *first = reader->at;
    int64_t value = 0;
    while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
        value = 10 * value + (*reader->at - '0');
        if (value > most) return dg__found(reader->error, DG_FORMAT, "header", -1, "no number above this one", most);
        reader->at++;
    }
    if (reader->at == first || (*first == '0' && reader->at - first > 1))
        return dg__bad(reader, "a whole number in plain digits");
    *number = value;
    return DG_OK;
}

/* A whole number that is a text of its own. */
static inline int dg__whole(dg__text text, const char *where, int64_t least, int64_t most, int32_t *number,
                            dg_error *error) {
    dg__reader reader;
    int64_t value = 0;
    reader.begin = reader.at = text.at;
    reader.end = text.at + text.length;
    reader.error = NULL;
    if (dg__digits(&reader, most, &value) || reader.at != reader.end)
        return dg__found(error, DG_FORMAT, where, -1, "a whole number in digits, at most the one named", most);
    if (value < least) return dg__found(error, DG_FORMAT, where, -1, "a larger number", value);
    *number = (int32_t)value;
    return DG_OK;
}

enum { DG__ARRAYS = 13, DG__FIELDS = 14, DG__REQUIRED = 11 };
enum { DG__F = 1, DG__V = 11 }; /* metadata.version; metadata.model_revision, the first that may be missing */

static inline const char *dg__array_name(int array) {
    static const char *const names[DG__ARRAYS] = {
        "formulas",   "lengths", "depth", "parent_ptr", "parent_index", "child_ptr",  "child_index",
        "max_i",      "max_j",   "min_masked", "completes_at", "truncation", "truncation_value"};
    return names[array];
}

static inline const char *dg__field_name(int field) {
    static const char *const names[DG__FIELDS] = {
        "format", "version", "rank_origin", "tie_rule",    "max_formula",    "model",    "policy",
        "block_length", "cache", "temperature", "top_j", "model_revision", "schedule", "truncation_split"};
    return names[field];
}

typedef struct {
    dg__text dtype;
    int32_t axes;
    int64_t shape[3];
    int64_t begin, end;
    int there;
} dg__array;

static inline int dg__list(dg__reader *reader, int32_t most, int64_t *numbers, int32_t *count) {
    *count = 0;
    if (!dg__mark(reader, '[')) return dg__bad(reader, "a list of numbers");
    if (dg__mark(reader, ']')) return DG_OK;
    do {
        if (*count == most) return dg__bad(reader, "a shorter list");
        dg__space(reader);
        if (dg__digits(reader, (int64_t)DG_MAX_FILE, &numbers[*count])) return DG_FORMAT;
        ++*count;
    } while (dg__mark(reader, ','));
    return dg__mark(reader, ']') ? DG_OK : dg__bad(reader, "a comma or the end of a list");
}

/* {"dtype": text, "shape": [...], "data_offsets": [begin, end]}, each once, in any order. */
static inline int dg__read_array(dg__reader *reader, dg__array *array) {
    int seen = 0;
    int32_t offsets = 0;
    int64_t span[2] = {0, 0};
    if (!dg__mark(reader, '{')) return dg__bad(reader, "an object about an array");
    do {
        dg__text name;
        int which;
        if (dg__string(reader, &name)) return DG_FORMAT;
        which = dg__is(name, "dtype") ? 1 : dg__is(name, "shape") ? 2 : dg__is(name, "data_offsets") ? 4 : 0;
        if (!which || (seen & which)) return dg__bad(reader, "dtype, shape and data_offsets, each once");
        seen |= which;
        if (!dg__mark(reader, ':')) return dg__bad(reader, "a colon");
        if (which == 1 && dg__string(reader, &array->dtype)) return DG_FORMAT;
        if (which == 2 && dg__list(reader, 3, array->shape, &array->axes)) return DG_FORMAT;
        if (which == 4 && dg__list(reader, 2, span, &offsets)) return DG_FORMAT;
    } while (dg__mark(reader, ','));
    if (!dg__mark(reader, '}')) return dg__bad(reader, "a comma or the end of an object");
    if (seen != 7 || offsets != 2) return dg__bad(reader, "dtype, shape and two data_offsets");
    array->begin = span[0];
    array->end = span[1];
    array->there = 1;
    return DG_OK;
}

static inline int dg__read_metadata(dg__reader *reader, dg__text *fields) {
    if (!dg__mark(reader, '{')) return dg__bad(reader, "an object of texts");
    if (dg__mark(reader, '}')) return DG_OK;
    do {
        dg__text name;
        int field = 0;
        if (dg__string(reader, &name)) return DG_FORMAT;
        while (field < DG__FIELDS && !dg__is(name, dg__field_name(field))) field++;
        if (field == DG__FIELDS) return dg__bad(reader, "a known name of the metadata; export the graph again");
        if (fields[field].at) return dg__bad(reader, "every name of the metadata once");
        if (!dg__mark(reader, ':')) return dg__bad(reader, "a colon");
        if (dg__string(reader, &fields[field])) return DG_FORMAT;
    } while (dg__mark(reader, ','));
    return dg__mark(reader, '}') ? DG_OK : dg__bad(reader, "a comma or the end of an object");
}

/* The header: one object, of known names only, so that no name needs to be kept to tell that none stands twice. */
static inline int dg__read_header(dg__reader *reader, dg__text *fields, dg__array *arrays) {
    int metadata = 0;
    if (reader->at >= reader->end || *reader->at != '{') return dg__bad(reader, "an object that begins with a brace");
    reader->at++;
    do {
        dg__text name;
        if (dg__string(reader, &name)) return DG_FORMAT;
        if (!dg__mark(reader, ':')) return dg__bad(reader, "a colon");
        if (dg__is(name, "__metadata__")) {
            if (metadata++) return dg__bad(reader, "the metadata once");
            if (dg__read_metadata(reader, fields)) return DG_FORMAT;
        } else {
            int array = 0;
            while (array < DG__ARRAYS && !dg__is(name, dg__array_name(array))) array++;
            if (array == DG__ARRAYS) return dg__bad(reader, "a known name of an array; export the graph again");
            if (arrays[array].there) return dg__bad(reader, "every array once");
            if (dg__read_array(reader, &arrays[array])) return DG_FORMAT;
        }
    } while (dg__mark(reader, ','));
    if (!dg__mark(reader, '}')) return dg__bad(reader, "a comma or the end of an object");
    dg__space(reader);
    return reader->at == reader->end ? DG_OK : dg__bad(reader, "nothing behind the header");
}

/* Arrays take all bytes of the body, without gaps, and each as many as its shape says. */
static inline int dg__check_spans(const dg__array *arrays, int64_t body, dg_error *error) {
    int order[DG__ARRAYS], k, place;
    int64_t reached = 0;
    for (k = 0; k < DG__ARRAYS; k++) {
        const dg__array *one = &arrays[k];
        int64_t count = 1;
        int32_t axis;
        if (!one->there) return dg__fail(error, DG_FORMAT, dg__array_name(k), -1, "this array, which is missing");
        if (!dg__is(one->dtype, k == DG__ARRAYS - 1 ? "F32" : "I32"))
            return dg__fail(error, DG_FORMAT, dg__array_name(k), -1, k == DG__ARRAYS - 1 ? "dtype F32" : "dtype I32");
        for (axis = 0; axis < one->axes; axis++) { /* each is at most 2^26, so nothing overflows */
            count *= one->shape[axis];
            if (count > (int64_t)DG_MAX_FILE)
                return dg__found(error, DG_FORMAT, dg__array_name(k), -1, "a smaller shape", count);
        }
        if (one->begin > one->end || one->end > body || one->end - one->begin != 4 * count)
            return dg__found(error, DG_FORMAT, dg__array_name(k), -1, "data_offsets of as many bytes as the shape has",
                             one->end - one->begin);
        for (place = k; place > 0 && (arrays[order[place - 1]].begin > one->begin ||
                                      (arrays[order[place - 1]].begin == one->begin &&
                                       arrays[order[place - 1]].end > one->end));
             place--)
            order[place] = order[place - 1];
        order[place] = k;
    }
    for (k = 0; k < DG__ARRAYS; k++) {
        if (arrays[order[k]].begin != reached)
            return dg__found(error, DG_FORMAT, dg__array_name(order[k]), -1, "arrays without gaps or overlaps",
                             arrays[order[k]].begin);
        reached = arrays[order[k]].end;
    }
    return reached == body ? DG_OK
                           : dg__found(error, DG_FORMAT, "file", -1, "arrays that take all bytes", body - reached);
}

static inline int dg__check_shapes(const dg__array *arrays, const dg_graph *graph, dg_error *error) {
    int k;
    for (k = 0; k < DG__ARRAYS; k++) {
        int64_t first = k == 3 || k == 5 ? (int64_t)graph->nodes + 1 : k == 4 || k == 6 ? graph->edges : graph->nodes;
        if (arrays[k].axes != (k == 0 ? 3 : 1) || arrays[k].shape[0] != first)
            return dg__found(error, DG_FORMAT, dg__array_name(k), -1, "the shape that nodes and edges have",
                             arrays[k].axes ? arrays[k].shape[0] : -1);
    }
    if (arrays[0].shape[1] != graph->pairs || arrays[0].shape[2] != 2)
        return dg__found(error, DG_FORMAT, "formulas", -1, "the shape [N, max(1, max_formula), 2]", arrays[0].shape[1]);
    return DG_OK;
}

static inline uint32_t dg__u32(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Little-endian numbers of four bytes, whatever this machine's order and the bytes' alignment are. */
static inline void *dg__copy(dg_arena *arena, const unsigned char *body, const dg__array *array) {
    size_t count = (size_t)(array->end - array->begin) / 4, k;
    unsigned char *out = DG__TAKE(arena, unsigned char, 4 * count);
    if (!out) return NULL;
    for (k = 0; k < count; k++) {
        uint32_t bits = dg__u32(body + array->begin + 4 * (int64_t)k);
        memcpy(out + 4 * k, &bits, 4);
    }
    return out;
}

static inline const char *dg__copy_text(dg_arena *arena, dg__text text) {
    size_t k, at = 0;
    char *out;
    if (!text.at) return NULL;
    out = DG__TAKE(arena, char, text.length + 1);
    if (!out) return NULL;
    for (k = 0; k < text.length; k++) {
        if (text.at[k] == '\\') k++; /* the reader saw what is behind it */
        out[at++] = (char)text.at[k];
    }
    out[at] = 0;
    return out;
}

static inline const int32_t *dg__formula(const dg_graph *graph, int32_t node) {
    return graph->formulas + (size_t)node * (size_t)graph->pairs * 2;
}

static inline int dg__check_formulas(const dg_graph *graph, dg_error *error) {
    int32_t node, pair, largest = 0;
    for (node = 0; node < graph->nodes; node++) {
        const int32_t *formula = dg__formula(graph, node);
        int32_t length = graph->lengths[node], highest_i = 0, highest_j = 0;
        int32_t most = graph->max_formula < graph->block_length ? graph->max_formula : graph->block_length - 1;
        if (node == 0 ? length != 0 : length < 1 || length > most)
            return dg__found(error, DG_FORMAT, "lengths", node,
                             "0 pairs for the root, else 1 to max_formula and fewer than block_length", length);
        if (length > largest) largest = length;
        for (pair = 0; pair < graph->pairs; pair++) {
            int32_t i = formula[2 * pair], j = formula[2 * pair + 1];
            if (pair >= length) {
                if (i || j) return dg__found(error, DG_FORMAT, "formulas", node, "0 behind the pairs", i ? i : j);
                continue;
            }
            if (i <= highest_i || i > graph->block_length)
                return dg__found(error, DG_FORMAT, "formulas", node,
                                 "ascending position ranks from 1 to block_length", i);
            if (j < 1 || j > graph->top_j)
                return dg__found(error, DG_FORMAT, "formulas", node, "vocabulary ranks from 1 to top_j", j);
            highest_i = i;
            if (j > highest_j) highest_j = j;
        }
        if (graph->max_i[node] != highest_i)
            return dg__found(error, DG_FORMAT, "max_i", node, "its highest position rank", graph->max_i[node]);
        if (graph->max_j[node] != highest_j)
            return dg__found(error, DG_FORMAT, "max_j", node, "its highest vocabulary rank", graph->max_j[node]);
        if (graph->min_masked[node] != (length + 1 > highest_i ? length + 1 : highest_i))
            return dg__found(error, DG_FORMAT, "min_masked", node, "more than its pairs, and its highest position rank",
                             graph->min_masked[node]);
        if (graph->completes_at[node] != length)
            return dg__found(error, DG_FORMAT, "completes_at", node, "its pairs", graph->completes_at[node]);
    }
    return largest == graph->max_formula
               ? DG_OK
               : dg__found(error, DG_FORMAT, "metadata.max_formula", -1, "the pairs of the largest formula",
                           graph->max_formula);
}

static inline int dg__compare(const dg_graph *graph, int32_t left, int32_t right) {
    const int32_t *one = dg__formula(graph, left), *other = dg__formula(graph, right);
    int32_t k, numbers = 2 * graph->lengths[left];
    if (graph->lengths[left] != graph->lengths[right]) return graph->lengths[left] < graph->lengths[right] ? -1 : 1;
    for (k = 0; k < numbers; k++)
        if (one[k] != other[k]) return one[k] < other[k] ? -1 : 1;
    return 0;
}

static inline int dg__formula_before(const void *graph, int32_t left, int32_t right) {
    int order = dg__compare((const dg_graph *)graph, left, right);
    return order ? order < 0 : left < right;
}

static inline int dg__is_part(const dg_graph *graph, int32_t parent, int32_t child) {
    const int32_t *small = dg__formula(graph, parent), *large = dg__formula(graph, child);
    int32_t at = 0, k;
    for (k = 0; k < graph->lengths[child] && at < graph->lengths[parent]; k++)
        if (small[2 * at] == large[2 * k] && small[2 * at + 1] == large[2 * k + 1]) at++;
    return at == graph->lengths[parent] && graph->lengths[parent] < graph->lengths[child];
}

/* Rows of numbers below N, ascending in each. */
static inline int dg__check_rows(const dg_graph *graph, const int32_t *ptr, const int32_t *index, const char *ptr_name,
                                 const char *index_name, dg_error *error) {
    int32_t node, at;
    if (ptr[0] != 0) return dg__found(error, DG_FORMAT, ptr_name, 0, "0", ptr[0]);
    if (ptr[graph->nodes] != graph->edges)
        return dg__found(error, DG_FORMAT, ptr_name, graph->nodes, "the number of edges", ptr[graph->nodes]);
    for (node = 0; node < graph->nodes; node++)
        if (ptr[node + 1] < ptr[node] || ptr[node + 1] > graph->edges)
            return dg__found(error, DG_FORMAT, ptr_name, node + 1, "numbers that never fall, up to the edges",
                             ptr[node + 1]);
    for (node = 0; node < graph->nodes; node++)
        for (at = ptr[node]; at < ptr[node + 1]; at++)
            if (index[at] < (at > ptr[node] ? index[at - 1] + 1 : 0) || index[at] >= graph->nodes)
                return dg__found(error, DG_FORMAT, index_name, at, "nodes in ascending order", index[at]);
    return DG_OK;
}

/*
 * Every edge leads to a larger formula, by `step` pairs where that is not 0, and every node but the root has a parent,
 * so all are reachable. That no edge was left out is not looked at, because nothing here walks along them.
 */
static inline int dg__check_edges(const dg_graph *graph, int32_t step, dg_error *error) {
    int32_t node, at;
    for (node = 0; node < graph->nodes; node++) {
        int32_t nearest = graph->nodes;
        for (at = graph->parent_ptr[node]; at < graph->parent_ptr[node + 1]; at++) {
            int32_t parent = graph->parent_index[at];
            if (!dg__is_part(graph, parent, node) ||
                (step && graph->lengths[node] - graph->lengths[parent] != step))
                return dg__found(error, DG_FORMAT, "parent_index", at,
                                 "a part of the node, smaller by the k of static:k", parent);
            if (graph->depth[parent] < nearest) nearest = graph->depth[parent];
        }
        if (node && graph->parent_ptr[node] == graph->parent_ptr[node + 1])
            return dg__fail(error, DG_FORMAT, "parent_ptr", node, "a parent of every node but the root");
        if (graph->depth[node] < 0 || graph->depth[node] >= graph->nodes ||
            graph->depth[node] != (node ? nearest + 1 : 0))
            return dg__found(error, DG_FORMAT, "depth", node, "the fewest edges from the root", graph->depth[node]);
    }
    for (node = 0; node < graph->nodes; node++)
        for (at = graph->child_ptr[node]; at < graph->child_ptr[node + 1]; at++) {
            int32_t child = graph->child_index[at];
            int32_t low = graph->parent_ptr[child], high = graph->parent_ptr[child + 1];
            while (low < high) {
                int32_t middle = low + (high - low) / 2;
                if (graph->parent_index[middle] < node)
                    low = middle + 1;
                else
                    high = middle;
            }
            if (low == graph->parent_ptr[child + 1] || graph->parent_index[low] != node)
                return dg__found(error, DG_FORMAT, "child_index", at, "the edges that parent_index has", child);
        }
    return DG_OK;
}

/* An order of all nodes, the root first, each behind one of its parents; and values that never fall, or NaN. */
static inline int dg__check_truncation(const dg_graph *graph, int32_t *place, dg_error *error) {
    int32_t node, at;
    for (node = 0; node < graph->nodes; node++) place[node] = -1;
    for (at = 0; at < graph->nodes; at++) {
        int32_t found = graph->truncation[at], edge;
        if (found < 0 || found >= graph->nodes || place[found] >= 0 || (at == 0 && found != 0))
            return dg__found(error, DG_FORMAT, "truncation", at, "every node once, the root first", found);
        place[found] = at;
        for (edge = graph->parent_ptr[found]; edge < graph->parent_ptr[found + 1]; edge++)
            if (place[graph->parent_index[edge]] >= 0) break;
        if (at && edge == graph->parent_ptr[found + 1])
            return dg__found(error, DG_FORMAT, "truncation", at, "a node behind one of its parents", found);
    }
    for (at = 0; at < graph->nodes; at++) {
        float value = graph->truncation_value[at];
        if (!graph->truncation_split ? value == value
                                     : !isfinite(value) || (at ? value < graph->truncation_value[at - 1] : value != 0))
            return dg__fail(error, DG_FORMAT, "truncation_value", at,
                            "numbers from 0 that never fall with a truncation_split, NaN without one");
    }
    return DG_OK;
}

static inline int dg__is_number(dg__text text) {
    size_t k;
    for (k = 0; k < text.length; k++)
        if (!(text.at[k] >= '0' && text.at[k] <= '9') && !(k && strchr(".e+-", (int)text.at[k]))) return 0;
    return text.length > 0 && text.length <= 32;
}

static inline int dg__check_metadata(const dg__text *fields, dg_graph *graph, int32_t *step, dg_error *error) {
    static const char *const caches[] = {"none", "prefix", "dual", "block_causal"};
    static const char *const splits[] = {"search", "validation", "test"};
    static const char *const fixed[] = {"draftgraph-buffers", DG_BUFFERS_VERSION, "lagged", DG_TIE_RULE};
    dg__text policy = fields[6];
    size_t k;
    int field;
    for (field = 0; field < DG__REQUIRED; field++) {
        if (!fields[field].at)
            return dg__fail(error, DG_FORMAT, dg__field_name(field), -1, "this text in the metadata; export again");
        if (field < 4 && !dg__is(fields[field], fixed[field]))
            return dg__fail(error, DG_FORMAT, dg__field_name(field), -1, fixed[field]);
    }
    if (dg__whole(fields[4], "max_formula", 0, DG_MAX_BLOCK, &graph->max_formula, error) ||
        dg__whole(fields[7], "block_length", 1, DG_MAX_BLOCK, &graph->block_length, error) ||
        dg__whole(fields[10], "top_j", 1, DG_MAX_TOP_J, &graph->top_j, error))
        return DG_FORMAT;
    for (k = 0; k < 4 && !dg__is(fields[8], caches[k]); k++) {
    }
    if (k == 4) return dg__fail(error, DG_FORMAT, "cache", -1, "none, prefix, dual or block_causal");
    if (!dg__is_number(fields[9])) return dg__fail(error, DG_FORMAT, "temperature", -1, "a number of at least 0");
    for (k = 0; k < 3 && fields[13].at && !dg__is(fields[13], splits[k]); k++) {
    }
    if (k == 3) return dg__fail(error, DG_FORMAT, "truncation_split", -1, "search, validation or test");
    if (!fields[5].length || !policy.length) return dg__fail(error, DG_FORMAT, "model, policy", -1, "texts that say something");
    *step = 0;
    if (policy.length >= 6 && !memcmp(policy.at, "static", 6) && (policy.length == 6 || policy.at[6] == ':')) {
        dg__text number = policy;
        number.at += policy.length == 6 ? 6 : 7;
        number.length = 0;
        while (number.at + number.length < policy.at + policy.length && number.at[number.length] >= '0' &&
               number.at[number.length] <= '9')
            number.length++;
        if (dg__whole(number, "policy static:k, k", 1, INT32_MAX, step, error)) return DG_FORMAT;
    }
    return DG_OK;
}

/* Bytes of an arena that are enough for dg_load of a file of so many. */
static inline size_t dg_load_bytes(size_t file_bytes) { return 2 * file_bytes + 1024; }

/*
 * Load the static buffers that `draftgraph export GRAPH.json --out GRAPH.safetensors` writes.
 *
 * Refused is whatever is not exactly such a file: another version, an unknown, missing or doubled name, a gap between
 * arrays, a rank out of range, a formula that stands twice, a node without a parent, an array that contradicts the
 * formulas. `graph` may be used only when DG_OK is returned. Time: O(bytes + N log N * S + E * S).
 */
static inline int dg_load(const void *bytes, size_t size, dg_arena *arena, dg_graph *graph, dg_error *error) {
    const unsigned char *file = (const unsigned char *)bytes, *body;
    dg__text fields[DG__FIELDS];
    dg__array arrays[DG__ARRAYS];
    dg__reader reader;
    int32_t *copies[DG__ARRAYS], *scratch, step = 0, node;
    size_t header;
    int k;
    memset(fields, 0, sizeof fields);
    memset(arrays, 0, sizeof arrays);
    memset(graph, 0, sizeof *graph);
    if (!file || size < 10 || size > DG_MAX_FILE)
        return dg__found(error, DG_FORMAT, "file", -1, "safetensors of 10 bytes to 64 MiB", (int64_t)(size & INT32_MAX));
    header = (size_t)dg__u32(file);
    if (dg__u32(file + 4) || header > DG_MAX_HEADER || header > size - 8)
        return dg__found(error, DG_FORMAT, "header", -1, "at most 64 KiB, within the file", (int64_t)header);
    reader.begin = reader.at = file + 8;
    reader.end = body = file + 8 + header;
    reader.error = error;
    if (dg__read_header(&reader, fields, arrays) || dg__check_metadata(fields, graph, &step, error) ||
        dg__check_spans(arrays, (int64_t)(size - 8 - header), error))
        return DG_FORMAT;
    if (arrays[1].axes != 1 || arrays[1].shape[0] < 1 || arrays[1].shape[0] > DG_MAX_NODES)
        return dg__found(error, DG_FORMAT, "lengths", -1, "1 to 65536 nodes", arrays[1].axes ? arrays[1].shape[0] : -1);
    if (arrays[4].axes != 1 || arrays[4].shape[0] > DG_MAX_EDGES)
        return dg__found(error, DG_FORMAT, "parent_index", -1, "at most 1048576 edges",
                         arrays[4].axes ? arrays[4].shape[0] : -1);
    graph->nodes = (int32_t)arrays[1].shape[0];
    graph->edges = (int32_t)arrays[4].shape[0];
    graph->pairs = graph->max_formula ? graph->max_formula : 1;
    if (dg__check_shapes(arrays, graph, error)) return DG_FORMAT;

    for (k = 0; k < DG__ARRAYS; k++) copies[k] = (int32_t *)dg__copy(arena, body, &arrays[k]);
    graph->model = dg__copy_text(arena, fields[5]);
    graph->policy = dg__copy_text(arena, fields[6]);
    graph->cache = dg__copy_text(arena, fields[8]);
    graph->temperature = dg__copy_text(arena, fields[9]);
    graph->model_revision = dg__copy_text(arena, fields[11]);
    graph->schedule = dg__copy_text(arena, fields[12]);
    graph->truncation_split = dg__copy_text(arena, fields[13]);
    scratch = DG__TAKE(arena, int32_t, graph->nodes);
    if (!scratch) return dg__fail(error, DG_MEMORY, "arena", -1, "dg_load_bytes(size of the file)");
    graph->formulas = copies[0];
    graph->lengths = copies[1];
    graph->depth = copies[2];
    graph->parent_ptr = copies[3];
    graph->parent_index = copies[4];
    graph->child_ptr = copies[5];
    graph->child_index = copies[6];
    graph->max_i = copies[7];
    graph->max_j = copies[8];
    graph->min_masked = copies[9];
    graph->completes_at = copies[10];
    graph->truncation = copies[11];
    graph->truncation_value = (const float *)(const void *)copies[12];

    if (dg__check_formulas(graph, error)) return DG_FORMAT;
    for (node = 0; node < graph->nodes; node++) scratch[node] = node;
    dg__sort(scratch, (size_t)graph->nodes, dg__formula_before, graph);
    for (node = 1; node < graph->nodes; node++)
        if (!dg__compare(graph, scratch[node - 1], scratch[node]))
            return dg__found(error, DG_FORMAT, "formulas", scratch[node], "a node that stands once", scratch[node - 1]);
    if (dg__check_rows(graph, graph->parent_ptr, graph->parent_index, "parent_ptr", "parent_index", error) ||
        dg__check_rows(graph, graph->child_ptr, graph->child_index, "child_ptr", "child_index", error) ||
        dg__check_edges(graph, step, error) || dg__check_truncation(graph, scratch, error))
        return DG_FORMAT;
    return DG_OK;
}

static inline int dg__same(const char *one, const char *other) {
    return one == other || (one && other && strcmp(one, other) == 0);
}

/*
 * Whether a graph was calibrated for what a server runs; with anything else it stays lossless, but fills in other
 * tokens than it was made for. Texts are spelled as in the file: policy "static:1", cache "dual", temperature "0.0".
 * `model` and `schedule` may be NULL: a model is then not compared, a schedule must be absent.
 */
static inline int dg_check_validity(const dg_graph *graph, const char *model, const char *policy, int32_t block_length,
                                    const char *cache, const char *temperature, int32_t top_j, const char *schedule,
                                    dg_error *error) {
    if (model && !dg__same(graph->model, model)) return dg__fail(error, DG_MISMATCH, "model", -1, graph->model);
    if (!dg__same(graph->policy, policy)) return dg__fail(error, DG_MISMATCH, "policy", -1, graph->policy);
    if (graph->block_length != block_length)
        return dg__found(error, DG_MISMATCH, "block_length", -1, "that of the graph", block_length);
    if (!dg__same(graph->cache, cache)) return dg__fail(error, DG_MISMATCH, "cache", -1, graph->cache);
    if (!dg__same(graph->temperature, temperature))
        return dg__fail(error, DG_MISMATCH, "temperature", -1, graph->temperature);
    if (top_j < graph->top_j)
        return dg__found(error, DG_MISMATCH, "top_j", -1, "at least the vocabulary ranks of the graph", top_j);
    if (!dg__same(graph->schedule, schedule))
        return dg__fail(error, DG_MISMATCH, "schedule", -1, graph->schedule ? graph->schedule : "none");
    return DG_OK;
}

/* ------------------------------------------------------------------------------------------ rank, fill, match, walk */

/*
 * The ranks of a distribution at the positions masked in a state.
 *   order       [L], masked offsets by position rank, the most confident first; -1 behind them
 *   tokens      [L, top_j], the best tokens of every offset by vocabulary rank; -1 at offsets not masked, and behind the
 *               first `depth` ranks, where the vocabulary has no more
 *   confidence  [L], the probability of the best token; -1 at offsets not masked
 */
typedef struct {
    int32_t length, top_j;  /* room: L and J at most */
    int32_t masked, depth;  /* how many offsets are masked; vocabulary ranks that there are */
    int32_t *order, *tokens;
    double *confidence;
    float *best; /* [top_j], scratch */
} dg_ranks;

static inline int dg_ranks_init(dg_ranks *ranks, dg_arena *arena, int32_t length, int32_t top_j, dg_error *error) {
    memset(ranks, 0, sizeof *ranks);
    if (length < 1 || length > DG_MAX_BLOCK || top_j < 1 || top_j > DG_MAX_TOP_J)
        return dg__found(error, DG_ARGUMENT, "ranks", -1, "1 to 32767 positions and vocabulary ranks",
                         length < 1 || length > DG_MAX_BLOCK ? length : top_j);
    ranks->length = length;
    ranks->top_j = top_j;
    ranks->confidence = DG__TAKE(arena, double, length);
    ranks->order = DG__TAKE(arena, int32_t, length);
    ranks->tokens = DG__TAKE(arena, int32_t, (size_t)length * (size_t)top_j);
    ranks->best = DG__TAKE(arena, float, top_j);
    return ranks->best ? DG_OK : dg__fail(error, DG_MEMORY, "arena", -1, "as many bytes as its field `needed` says");
}

static inline int dg__confidence_before(const void *scores, int32_t left, int32_t right) {
    const double *score = (const double *)scores;
    return score[left] != score[right] ? score[left] > score[right] : left < right;
}

/*
 * Rank the masked positions of `state` [L] and, at each of them, the tokens; `logits` [L, V] are of the distribution
 * that produced it. Read at masked positions only, and never at the mask token. O(n V) for n masked positions.
 *
 * DG_NUMBER: NaN, +inf, or nothing above -inf at a masked position.
 */
static inline int dg_rank(const float *logits, const int32_t *state, int32_t length, int32_t vocabulary,
                          int32_t mask_token, dg_ranks *ranks, dg_error *error) {
    int32_t position, k;
    if (length < 1 || length > ranks->length)
        return dg__found(error, DG_ARGUMENT, "state", -1, "as many positions as the ranks have room for", length);
    if (vocabulary < 2 || mask_token < 0 || mask_token >= vocabulary)
        return dg__found(error, DG_ARGUMENT, "mask token", -1, "a token of the vocabulary, beside others", mask_token);
    ranks->masked = 0;
    ranks->depth = ranks->top_j < vocabulary - 1 ? ranks->top_j : vocabulary - 1;
    for (position = 0; position < length; position++) {
        const float *row = logits + (size_t)position * (size_t)vocabulary;
        int32_t *tokens = ranks->tokens + (size_t)position * (size_t)ranks->top_j, held = 0, token;
        double total = 0.0;
        ranks->order[position] = -1;
        ranks->confidence[position] = -1.0;
        for (k = 0; k < ranks->top_j; k++) tokens[k] = -1;
        if (state[position] != mask_token) continue;
        for (token = 0; token < vocabulary; token++) {
            float score = row[token];
            if (token == mask_token) continue;
            if (!(score < INFINITY))
                return dg__found(error, DG_NUMBER, "logits of position", position, "no NaN and no +inf; token", token);
            if (held == ranks->depth) {
                if (!(score > ranks->best[held - 1])) continue; /* equal scores: the lower token id stays */
                held--;
            }
            for (k = held; k > 0 && score > ranks->best[k - 1]; k--) {
                ranks->best[k] = ranks->best[k - 1];
                tokens[k] = tokens[k - 1];
            }
            ranks->best[k] = score;
            tokens[k] = token;
            held++;
        }
        if (!(ranks->best[0] > -INFINITY))
            return dg__fail(error, DG_NUMBER, "logits of position", position, "a token above -inf");
        for (token = 0; token < vocabulary; token++)
            if (token != mask_token) total += exp((double)row[token] - (double)ranks->best[0]);
        ranks->confidence[position] = 1.0 / total;
        ranks->order[ranks->masked++] = position;
    }
    dg__sort(ranks->order, (size_t)ranks->masked, dg__confidence_before, ranks->confidence);
    return DG_OK;
}

/*
 * The draft blocks of a graph at an anchor: drafts [N, L], usable [N] (0 or 1); returns how many rows are usable, the
 * root included. Row 0 is the state itself, and so is every row that is not usable: it names a rank that is not there,
 * or it fills the block (unless `complete`: a server may want to adopt the keys of such a draft).
 */
static inline int32_t dg_fill(const dg_graph *graph, const dg_ranks *ranks, const int32_t *state, int32_t length,
                              int complete, int32_t *drafts, unsigned char *usable) {
    int32_t node, pair, count = 0;
    for (node = 0; node < graph->nodes; node++) {
        const int32_t *formula = dg__formula(graph, node);
        int32_t *draft = drafts + (size_t)node * (size_t)length, size = graph->lengths[node];
        int fits = size < ranks->masked + (complete ? 1 : 0) || node == 0;
        for (pair = 0; pair < size && fits; pair++)
            fits = formula[2 * pair] >= 1 && formula[2 * pair] <= ranks->masked && formula[2 * pair + 1] >= 1 &&
                   formula[2 * pair + 1] <= ranks->depth;
        memcpy(draft, state, (size_t)length * sizeof *draft);
        for (pair = 0; pair < size && fits; pair++) {
            int32_t position = ranks->order[formula[2 * pair] - 1];
            draft[position] = ranks->tokens[(size_t)position * (size_t)ranks->top_j + (size_t)formula[2 * pair + 1] - 1];
        }
        usable[node] = (unsigned char)fits;
        count += fits;
    }
    return count;
}

/*
 * Leave of the usable rows those of the best `drafts` draft nodes, in the order of graph->truncation: a graph that fits
 * a smaller forward. Returns how many rows are left, the root included.
 */
static inline int32_t dg_cut(const dg_graph *graph, int32_t drafts, unsigned char *usable) {
    int32_t at, count = 0;
    for (at = 0; at < graph->nodes; at++) {
        if (at > drafts && at > 0) usable[graph->truncation[at]] = 0;
        count += usable[graph->truncation[at]];
    }
    return count;
}

/*
 * An unmasking rule: the `least` most confident positions, and every one whose confidence reaches tau (>= tau, or > tau
 * where strict). least may be 0: then a step may commit nothing.
 */
typedef struct {
    int32_t least;
    int has_tau, strict;
    double tau;
} dg_rule;

/* static:k */
static inline dg_rule dg_static(int32_t k) {
    dg_rule rule;
    rule.least = k;
    rule.has_tau = rule.strict = 0;
    rule.tau = 0.0;
    return rule;
}

/* threshold:tau (>=), or with strict dynamic:tau (>): the best always, and all that reach tau. */
static inline dg_rule dg_threshold(double tau, int strict) {
    dg_rule rule = dg_static(1);
    rule.has_tau = 1;
    rule.strict = strict;
    rule.tau = tau;
    return rule;
}

static inline int dg__reaches(const dg_rule *rule, double confidence) {
    return rule->has_tau && (rule->strict ? confidence > rule->tau : confidence >= rule->tau);
}

/* One denoising step, in place on `state` [L]; returns how many positions were committed. */
static inline int32_t dg_commit(const dg_ranks *ranks, const dg_rule *rule, int32_t *state) {
    int32_t count = 0, k;
    for (k = 0; k < ranks->masked; k++) {
        int32_t position = ranks->order[k];
        if (k >= rule->least && !dg__reaches(rule, ranks->confidence[position])) break; /* none behind it does */
        state[position] = ranks->tokens[(size_t)position * (size_t)ranks->top_j];
        count++;
    }
    return count;
}

/* The lowest usable draft that equals `following` [L], -1 without one. The root is no draft. */
static inline int32_t dg_find(const int32_t *drafts, const unsigned char *usable, const int32_t *following,
                              int32_t nodes, int32_t length) {
    int32_t node;
    for (node = 1; node < nodes; node++)
        if (usable[node] &&
            !memcmp(drafts + (size_t)node * (size_t)length, following, (size_t)length * sizeof *following))
            return node;
    return -1;
}

/*
 * The row that each row's next state is, successor [N], from the next state of each, following [N, L]: the lowest usable
 * draft that equals it, else -1. A row that is not usable has none, nor has one that committed nothing. O(N^2 L).
 */
static inline void dg_match(const int32_t *drafts, const unsigned char *usable, const int32_t *following, int32_t nodes,
                            int32_t length, int32_t *successor) {
    int32_t node;
    for (node = 0; node < nodes; node++) {
        const int32_t *next = following + (size_t)node * (size_t)length;
        int idle = !memcmp(next, drafts + (size_t)node * (size_t)length, (size_t)length * sizeof *next);
        successor[node] = usable[node] && !idle ? dg_find(drafts, usable, next, nodes, length) : -1;
    }
}

/* Follow `successor` [N] from row 0: path [N], -1 behind it; returns the accepted drafts. */
static inline int32_t dg_walk(const int32_t *successor, int32_t nodes, int32_t *path) {
    int32_t at = 0, step, count = 0;
    for (step = 0; step < nodes; step++) {
        path[step] = at;
        count += at >= 0;
        if (at >= 0) at = successor[at] < nodes ? successor[at] : -1;
        if (at < 0) at = -1;
    }
    return count - 1;
}

typedef struct {
    int32_t accepted;  /* drafts on the path */
    int32_t last;      /* the last row of it; its logits produced the state reached */
    int32_t committed; /* positions that its step committed */
} dg_accepted;

/*
 * Use the distributions of a forward as far as they reach: rank, commit, match and walk, of the rows on the path alone.
 *
 *   logits     [rows, L, V]; row_of [N] says in which of them a node's row lies (NULL: in row n; below 0: nowhere)
 *   drafts, usable, nodes: as dg_fill gives them
 *   ranks      scratch; afterwards the ranks of the last distribution at the positions masked before its step
 *   path       [N], the rows used, row 0 first, -1 behind them
 *   state      [L], the state reached: the next anchor, or the whole block
 */
static inline int dg_accept(const float *logits, const int32_t *row_of, const int32_t *drafts,
                            const unsigned char *usable, int32_t nodes, int32_t length, int32_t vocabulary,
                            int32_t mask_token, const dg_rule *rule, dg_ranks *ranks, int32_t *path, int32_t *state,
                            dg_accepted *accepted, dg_error *error) {
    int32_t at = 0, step;
    for (step = 0; step < nodes; step++) path[step] = -1;
    accepted->accepted = accepted->last = -1;
    accepted->committed = 0;
    for (step = 0; step < nodes && at >= 0; step++) {
        int32_t row = row_of ? row_of[at] : at;
        int status;
        if (row < 0) {
            if (at == 0) return dg__found(error, DG_ARGUMENT, "row_of", 0, "a row of the root", row);
            break;
        }
        path[step] = accepted->last = at;
        accepted->accepted++;
        memcpy(state, drafts + (size_t)at * (size_t)length, (size_t)length * sizeof *state);
        status = dg_rank(logits + (size_t)row * (size_t)length * (size_t)vocabulary, state, length, vocabulary,
                         mask_token, ranks, error);
        if (status) return status;
        accepted->committed = dg_commit(ranks, rule, state);
        at = accepted->committed ? dg_find(drafts, usable, state, nodes, length) : -1;
    }
    return DG_OK;
}

/* --------------------------------------------------------------------------------------------- informed drafts */

/*
 * Drafts that learn inside a block, without a calibrated graph (docs/method.md, informed drafts): every evaluated state,
 * accepted or not, shows what commits do to the rest of the block; from that the next states are predicted. What goes in
 * is the top token and its confidence at every masked position, as dg_rank gives them, and nothing of the vocabulary.
 *
 * The proposals are those of verify/drafters/informed.py in a cache mode without bridges, with the fills "alternatives"
 * and "none". Whatever is proposed, the tokens are those of plain decoding.
 */
typedef struct {
    double coefficient;   /* what a change of log-odds is multiplied by; finite, at least 0 */
    int32_t horizon;      /* states that the chain proposes at most; 0: as many as there are drafts */
    int32_t alternatives; /* whether rows that the chain leaves go to the nearest other choices of its steps */
    int32_t width;        /* alternatives at every step, at least 1 */
    int32_t follow;       /* states proposed beyond an alternative at most */
    int32_t forwards;     /* forwards of a block that there is room for; 0: L. One more, and the block starts anew */
    int32_t influences;   /* sets that there is room for; 0: 64 a position. What comes when all is full is not learned */
} dg_settings;

static inline dg_settings dg_default_settings(void) {
    dg_settings settings;
    settings.coefficient = 1.0;
    settings.horizon = 0;
    settings.alternatives = 1;
    settings.width = 1;
    settings.follow = 0;
    settings.forwards = 0;
    settings.influences = 0;
    return settings;
}

/* A set of committed (offset, token) pairs, and the two states that show what committing it did. */
typedef struct {
    int32_t size; /* 0: the slot is free */
    int32_t offset[DG_LARGEST_SET], token[DG_LARGEST_SET];
    int32_t before, after;     /* states */
    int32_t forward, distance; /* when it was learned, and how far `before` is from the state then reached */
} dg__influence;

/* Where a chain stands, and the step that it takes there. All arrays [L]; tokens and odds matter at masked offsets. */
typedef struct {
    int32_t *state, *token;
    double *odds;
    int32_t known; /* the state as it is remembered, -1 where it was never evaluated */
    int32_t *order; /* masked offsets, the highest odds first */
    int32_t *chosen;
    int32_t masked, count;
} dg__place;

typedef struct {
    int32_t length, drafts, mask_token;
    dg_rule rule;
    dg_settings settings;
    int32_t capacity, count; /* states of the block: room, and kept */
    int32_t forward;         /* forwards of the block so far */
    int32_t begin[DG_KEPT_FORWARDS]; /* first states of the newest forwards, the newest first */
    int32_t *states, *token;         /* [capacity, L] */
    double *confidence, *odds;       /* [capacity, L] */
    int32_t *committed;              /* [capacity] */
    dg__influence *table;
    int32_t slots, used;
    dg__place *places; /* [L + 3]: the chain's, and three to try others */
    int32_t *steps;    /* [L + 1], the places where the chain took a step */
    int32_t *choices, *choice_step, *choice_count; /* [(L + 1) * 2 * width], alternatives: see dg__alternatives */
    double *gap;
    int32_t *scratch; /* [L] */
} dg_informed;

/* Forget the block: in the next one other keys are cached, and nothing learned here holds there. */
static inline void dg_informed_start_block(dg_informed *informed) {
    int k;
    informed->count = informed->forward = informed->used = 0;
    for (k = 0; k < DG_KEPT_FORWARDS; k++) informed->begin[k] = 0;
    memset(informed->table, 0, (size_t)informed->slots * sizeof *informed->table);
}

/*
 * A drafter of up to `drafts` states a forward, for one sequence. It takes memory that an empty arena counts; with the
 * usual settings, L = 32 and 10 drafts it is some 0.5 MB.
 *
 * DG_ARGUMENT: sizes or settings out of range, a rule that may commit nothing, or a tau outside 0 < tau <= 1.
 */
static inline int dg_informed_init(dg_informed *informed, dg_arena *arena, int32_t length, int32_t drafts,
                                   int32_t mask_token, dg_rule rule, dg_settings settings, dg_error *error) {
    size_t L = (size_t)(length > 0 ? length : 0), states, place, choices;
    int64_t sets;
    memset(informed, 0, sizeof *informed);
    if (length < 1 || length > 4096)
        return dg__found(error, DG_ARGUMENT, "length", -1, "1 to 4096 positions", length);
    if (drafts < 0 || drafts > 1024) return dg__found(error, DG_ARGUMENT, "drafts", -1, "0 to 1024", drafts);
    if (rule.least < 1 || (rule.has_tau && !(rule.tau > 0.0 && rule.tau <= 1.0)))
        return dg__found(error, DG_ARGUMENT, "rule", -1, "at least one position a step, and 0 < tau <= 1", rule.least);
    if (!(settings.coefficient >= 0.0 && settings.coefficient < INFINITY))
        return dg__fail(error, DG_ARGUMENT, "coefficient", -1, "a finite number of at least 0");
    if (settings.horizon < 0 || settings.follow < 0)
        return dg__fail(error, DG_ARGUMENT, "horizon, follow", -1, "numbers of at least 0");
    if (settings.width < 1 || settings.width > length)
        return dg__found(error, DG_ARGUMENT, "width", -1, "1 to the block length", settings.width);
    if (settings.forwards < 0 || settings.forwards > 4 * length)
        return dg__found(error, DG_ARGUMENT, "forwards", -1, "0 to four times the block length", settings.forwards);
    if (settings.influences < 0 || settings.influences > 1 << 24)
        return dg__found(error, DG_ARGUMENT, "influences", -1, "0 to 16777216", settings.influences);
    if ((uint64_t)(settings.forwards ? settings.forwards : length) * (1 + (uint64_t)drafts) * L > SIZE_MAX / 64)
        return dg__found(error, DG_ARGUMENT, "forwards, drafts", -1, "fewer, for this machine's addresses", drafts);
    informed->length = length;
    informed->drafts = drafts;
    informed->mask_token = mask_token;
    informed->rule = rule;
    informed->settings = settings;
    informed->capacity = (settings.forwards ? settings.forwards : length) * (1 + drafts);
    sets = settings.influences ? settings.influences : 64 * (int64_t)length;
    for (informed->slots = 16; 3 * (int64_t)informed->slots < 4 * sets; informed->slots *= 2) {
    }
    states = (size_t)informed->capacity;
    choices = (L + 1) * 2 * (size_t)settings.width;
    informed->confidence = DG__TAKE(arena, double, states * L);
    informed->odds = DG__TAKE(arena, double, states * L);
    informed->states = DG__TAKE(arena, int32_t, states * L);
    informed->token = DG__TAKE(arena, int32_t, states * L);
    informed->committed = DG__TAKE(arena, int32_t, states);
    informed->table = DG__TAKE(arena, dg__influence, informed->slots);
    informed->gap = DG__TAKE(arena, double, choices);
    informed->choices = DG__TAKE(arena, int32_t, choices);
    informed->choice_step = DG__TAKE(arena, int32_t, choices);
    informed->choice_count = DG__TAKE(arena, int32_t, choices);
    informed->scratch = DG__TAKE(arena, int32_t, L);
    informed->steps = DG__TAKE(arena, int32_t, L + 1);
    informed->places = DG__TAKE(arena, dg__place, L + 3);
    for (place = 0; place < L + 3; place++) {
        double *odds = DG__TAKE(arena, double, L);
        int32_t *numbers = DG__TAKE(arena, int32_t, 4 * L);
        if (!numbers) continue; /* goes on to count */
        memset(&informed->places[place], 0, sizeof informed->places[place]);
        informed->places[place].odds = odds;
        informed->places[place].state = numbers;
        informed->places[place].token = numbers + L;
        informed->places[place].order = numbers + 2 * L;
        informed->places[place].chosen = numbers + 3 * L;
    }
    if (arena->needed != arena->used)
        return dg__fail(error, DG_MEMORY, "arena", -1, "as many bytes as its field `needed` says");
    dg_informed_start_block(informed);
    return DG_OK;
}

/* log p - log(1 - p), within +-36. */
static inline double dg_log_odds(double p) {
    double odds = log(p) - log1p(-p);
    return odds > DG_LOG_ODDS_LIMIT ? DG_LOG_ODDS_LIMIT : odds < -DG_LOG_ODDS_LIMIT ? -DG_LOG_ODDS_LIMIT : odds;
}

/* A pair has a slot, or the free one where it would go; NULL where all is full. */
static inline dg__influence *dg__slot(const dg_informed *informed, const int32_t *offset, const int32_t *token,
                                      int32_t size) {
    uint64_t code = (uint64_t)size;
    int32_t k, at, tried;
    for (k = 0; k < size; k++) {
        code = (code ^ ((uint64_t)(uint32_t)offset[k] << 32 | (uint32_t)token[k])) * UINT64_C(0x9E3779B97F4A7C15);
        code ^= code >> 29;
    }
    at = (int32_t)((code >> 8) & (uint64_t)(informed->slots - 1));
    for (tried = 0; tried < informed->slots; tried++, at = (at + 1) & (informed->slots - 1)) {
        dg__influence *slot = &informed->table[at];
        if (!slot->size) return slot;
        if (slot->size != size) continue;
        for (k = 0; k < size && slot->offset[k] == offset[k] && slot->token[k] == token[k]; k++) {
        }
        if (k == size) return slot;
    }
    return NULL;
}

/* What the two states `one` and `other` show, if one is a part of the other and the difference small enough. */
static inline void dg__compare_states(dg_informed *informed, int32_t one, int32_t other, int32_t reached) {
    const size_t L = (size_t)informed->length;
    const int32_t largest = !informed->rule.has_tau && informed->rule.least == 1 ? 1 : DG_LARGEST_SET;
    int32_t larger = informed->committed[one] > informed->committed[other] ? one : other;
    int32_t smaller = larger == one ? other : one;
    int32_t size = informed->committed[larger] - informed->committed[smaller], found = 0, distance = 0, position;
    int32_t offset[DG_LARGEST_SET], token[DG_LARGEST_SET];
    const int32_t *large = informed->states + (size_t)larger * L, *small = informed->states + (size_t)smaller * L;
    const int32_t *root = informed->states + (size_t)reached * L;
    dg__influence *slot;
    if (size < 1 || size > largest) return;
    for (position = 0; position < informed->length; position++) {
        if (small[position] != large[position]) {
            if (found == size) return; /* they differ in more than the larger one has more */
            offset[found] = position;
            token[found++] = large[position];
        }
        distance += small[position] != root[position];
    }
    if (found != size) return;
    slot = dg__slot(informed, offset, token, size);
    if (!slot) return;
    if (!slot->size) {
        if (4 * (int64_t)informed->used >= 3 * (int64_t)informed->slots) return;
        informed->used++;
    } else if (slot->forward == informed->forward) { /* within a forward the nearest base wins, then the later states */
        if (distance > slot->distance) return;
        if (distance == slot->distance && (larger < slot->after || (larger == slot->after && smaller < slot->before)))
            return;
    }
    slot->size = size;
    memcpy(slot->offset, offset, sizeof offset[0] * (size_t)size);
    memcpy(slot->token, token, sizeof token[0] * (size_t)size);
    slot->before = smaller;
    slot->after = larger;
    slot->forward = informed->forward;
    slot->distance = distance;
}

/*
 * A forward evaluated `states` [n, L] of the block, the reached one first: the top `tokens` [n, L] and their
 * `confidences` [n, L]; read where a state is masked. n is at most 1 + drafts. O(n K L) for K kept states.
 *
 * DG_NUMBER: a confidence that is not 0 < p <= 1, or a top token that is the mask token; nothing was learned then.
 */
static inline int dg_informed_learn(dg_informed *informed, int32_t n, const int32_t *states, const int32_t *tokens,
                                    const double *confidences, dg_error *error) {
    const size_t L = (size_t)informed->length;
    size_t place;
    int32_t state, other, first, oldest;
    int k;
    if (n < 1 || n > 1 + informed->drafts)
        return dg__found(error, DG_ARGUMENT, "states", -1, "the reached state, and at most the drafts", n);
    for (place = 0; place < (size_t)n * L; place++)
        if (states[place] == informed->mask_token &&
            (!(confidences[place] > 0.0 && confidences[place] <= 1.0) || tokens[place] == informed->mask_token))
            return dg__found(error, DG_NUMBER, "confidences, tokens", (int64_t)place,
                             "0 < confidence <= 1 of a token that is not the mask token", tokens[place]);
    if (informed->count + n > informed->capacity) dg_informed_start_block(informed);
    first = informed->count;
    for (k = DG_KEPT_FORWARDS - 1; k > 0; k--) informed->begin[k] = informed->begin[k - 1];
    informed->begin[0] = first;
    informed->forward++;
    informed->count += n;
    for (state = 0; state < n; state++) {
        const size_t from = (size_t)state * L, to = (size_t)(first + state) * L;
        int32_t committed = 0;
        for (place = 0; place < L; place++) {
            int masked = states[from + place] == informed->mask_token;
            informed->states[to + place] = states[from + place];
            informed->token[to + place] = masked ? tokens[from + place] : 0;
            informed->confidence[to + place] = masked ? confidences[from + place] : 0.0;
            informed->odds[to + place] = masked ? dg_log_odds(confidences[from + place]) : 0.0;
            committed += !masked;
        }
        informed->committed[first + state] = committed;
    }
    oldest = informed->begin[DG_COMPARED_FORWARDS - 1];
    for (state = first; state < informed->count; state++)
        for (other = oldest; other < state; other++) dg__compare_states(informed, state, other, first);
    return DG_OK;
}

/* The remembered state that equals `state` [L], -1 without one; the newest forwards only. */
static inline int32_t dg_informed_find(const dg_informed *informed, const int32_t *state) {
    const size_t L = (size_t)informed->length;
    int32_t at;
    for (at = informed->count - 1; at >= informed->begin[DG_KEPT_FORWARDS - 1]; at--)
        if (!memcmp(informed->states + (size_t)at * L, state, L * sizeof *state)) return at;
    return -1;
}

static inline void dg__place_at(dg_informed *informed, dg__place *place, int32_t known) {
    const size_t L = (size_t)informed->length;
    place->known = known;
    memcpy(place->token, informed->token + (size_t)known * L, L * sizeof *place->token);
    memcpy(place->odds, informed->odds + (size_t)known * L, L * sizeof *place->odds);
}

/* What is expected after `offset`, `token` are committed: the influence of the set, or of its pairs that are known. */
static inline void dg__expect(const dg_informed *informed, dg__place *place, const int32_t *offset, int32_t size) {
    const size_t L = (size_t)informed->length;
    int32_t set_offset[DG_LARGEST_SET], set_token[DG_LARGEST_SET], k, part, whole = 0;
    if (size <= DG_LARGEST_SET) {
        const dg__influence *slot;
        for (k = 0; k < size; k++) {
            set_offset[k] = offset[k];
            set_token[k] = place->state[offset[k]];
        }
        slot = size ? dg__slot(informed, set_offset, set_token, size) : NULL;
        whole = slot && slot->size;
    }
    for (part = 0; part < (whole ? 1 : size); part++) {
        const dg__influence *slot;
        const int32_t *before, *after, *state;
        const double *odds_before, *odds_after;
        size_t position;
        if (!whole) {
            set_offset[0] = offset[part];
            set_token[0] = place->state[offset[part]];
        }
        slot = dg__slot(informed, set_offset, set_token, whole ? size : 1);
        if (!slot || !slot->size) continue;
        before = informed->token + (size_t)slot->before * L;
        after = informed->token + (size_t)slot->after * L;
        state = informed->states + (size_t)slot->after * L;
        odds_before = informed->odds + (size_t)slot->before * L;
        odds_after = informed->odds + (size_t)slot->after * L;
        for (position = 0; position < L; position++) {
            if (state[position] != informed->mask_token) continue; /* nothing is known there, so nothing moves */
            if (after[position] != before[position] && after[position] != place->token[position]) {
                place->token[position] = after[position]; /* a new top token comes with its own log-odds */
                place->odds[position] = odds_after[position];
            } else {
                place->odds[position] +=
                    informed->settings.coefficient * (odds_after[position] - odds_before[position]);
            }
        }
    }
}

/* What the rule commits at a place: place->order, ->chosen, ->count. At a known one it sees the real confidences. */
static inline void dg__step(const dg_informed *informed, dg__place *place) {
    int32_t position, k;
    place->masked = place->count = 0;
    for (position = 0; position < informed->length; position++)
        if (place->state[position] == informed->mask_token) place->order[place->masked++] = position;
    memcpy(place->chosen, place->order, (size_t)place->masked * sizeof *place->order);
    dg__sort(place->order, (size_t)place->masked, dg__confidence_before, place->odds);
    if (place->known >= 0) {
        const double *confidence = informed->confidence + (size_t)place->known * (size_t)informed->length;
        dg__sort(place->chosen, (size_t)place->masked, dg__confidence_before, confidence);
        for (k = 0; k < place->masked; k++, place->count++)
            if (k >= informed->rule.least && !dg__reaches(&informed->rule, confidence[place->chosen[k]])) break;
        return;
    }
    memcpy(place->chosen, place->order, (size_t)place->masked * sizeof *place->order);
    for (k = 0; k < place->masked; k++, place->count++) {
        double odds = place->odds[place->chosen[k]];
        if (k >= informed->rule.least && !dg__reaches(&informed->rule, 1.0 / (1.0 + exp(odds > -700.0 ? -odds : 700.0))))
            break;
    }
}

static inline int dg__ascending(const void *context, int32_t left, int32_t right) {
    (void)context;
    return left < right;
}

/* Where committing the top tokens of `chosen` (count of them) leads from a place; 0 where the block would be complete. */
static inline int dg__reach(dg_informed *informed, const dg__place *place, const int32_t *chosen, int32_t count,
                            dg__place *to) {
    const size_t L = (size_t)informed->length;
    int32_t k, known;
    if (count < 1 || count >= place->masked) return 0;
    memcpy(informed->scratch, chosen, (size_t)count * sizeof *chosen);
    dg__sort(informed->scratch, (size_t)count, dg__ascending, NULL);
    memmove(to->state, place->state, L * sizeof *to->state);
    for (k = 0; k < count; k++) to->state[informed->scratch[k]] = place->token[informed->scratch[k]];
    known = dg_informed_find(informed, to->state);
    if (known >= 0) {
        dg__place_at(informed, to, known);
        return 1;
    }
    to->known = -1;
    memmove(to->token, place->token, L * sizeof *to->token);
    memmove(to->odds, place->odds, L * sizeof *to->odds);
    dg__expect(informed, to, informed->scratch, count);
    return 1;
}

typedef struct {
    int32_t base;      /* the known state whose distribution the last step used */
    int32_t steps;     /* denoising steps made */
    int32_t committed; /* positions that the last of them committed */
    int32_t complete;  /* whether the block is */
} dg_walked;

/*
 * Go on from the first state of the newest forward through every known state, by the rule on real confidences alone:
 * `block` [L] becomes the state reached. Its distribution is not known, or it is complete.
 */
static inline int dg_informed_walk(dg_informed *informed, int32_t *block, dg_walked *walked, dg_error *error) {
    const size_t L = (size_t)informed->length;
    dg__place *place = &informed->places[0];
    int32_t known = informed->begin[0], k;
    memset(walked, 0, sizeof *walked);
    if (!informed->count)
        return dg__fail(error, DG_ARGUMENT, "walk", -1, "a forward that was learned from since the block began");
    memcpy(place->state, informed->states + (size_t)known * L, L * sizeof *block);
    while (known >= 0) {
        dg__place_at(informed, place, known);
        dg__step(informed, place);
        walked->base = known;
        walked->steps++;
        walked->committed = place->count;
        for (k = 0; k < place->count; k++) place->state[place->chosen[k]] = place->token[place->chosen[k]];
        walked->complete = place->count == place->masked;
        if (walked->complete) break;
        known = dg_informed_find(informed, place->state); /* every step commits something, so this ends */
    }
    memcpy(block, place->state, L * sizeof *block);
    return DG_OK;
}

/* The rows of a proposal: distinct states that are not known yet. */
typedef struct {
    int32_t *drafts;
    int32_t count, most;
} dg__rows;

static inline void dg__add(const dg_informed *informed, dg__rows *rows, const int32_t *block, const int32_t *state) {
    const size_t L = (size_t)informed->length;
    int32_t k;
    if (rows->count >= rows->most || !memcmp(block, state, L * sizeof *state)) return;
    for (k = 0; k < rows->count; k++)
        if (!memcmp(rows->drafts + (size_t)k * L, state, L * sizeof *state)) return;
    memcpy(rows->drafts + (size_t)rows->count++ * L, state, L * sizeof *state);
}

static inline int dg__nearer(const void *gaps, int32_t left, int32_t right) {
    const double *gap = (const double *)gaps;
    return gap[left] != gap[right] ? gap[left] < gap[right] : left < right;
}

/*
 * Give the rows that are left to the nearest other choices of the chain's steps, each at its place `choice_step`. Under
 * static:k the last position is swapped for the next best ones (choice_count: minus the index of the other one, which
 * is at least 1); else some more are taken, or fewer (choice_count: how many).
 */
static inline void dg__alternatives(dg_informed *informed, int32_t steps, dg__rows *rows, const int32_t *block) {
    const int32_t width = informed->settings.width;
    dg__place *there = &informed->places[informed->length + 1], *then = &informed->places[informed->length + 2];
    int32_t found = 0, step, at, k;
    for (step = 0; step < steps; step++) {
        const dg__place *place = &informed->places[informed->steps[step]];
        const int32_t count = place->count;
        const double last = place->odds[place->order[count - 1]], tau = informed->rule.tau;
        const double edge = informed->rule.has_tau && tau < 1.0 ? log(tau) - log1p(-tau) : last;
        for (k = count; k < count + width && k < place->masked; k++, found++) {
            informed->choice_step[found] = informed->steps[step];
            informed->choice_count[found] = informed->rule.has_tau ? k + 1 : -k;
            informed->gap[found] = informed->rule.has_tau ? fabs(edge - place->odds[place->order[k]])
                                                          : last - place->odds[place->order[k]];
        }
        for (k = count - 1; informed->rule.has_tau && k > 0 && k > count - 1 - width; k--, found++) {
            informed->choice_step[found] = informed->steps[step];
            informed->choice_count[found] = k;
            informed->gap[found] = fabs(place->odds[place->order[k]] - edge);
        }
    }
    for (k = 0; k < found; k++) informed->choices[k] = k;
    dg__sort(informed->choices, (size_t)found, dg__nearer, informed->gap);
    for (at = 0; at < found && rows->count < rows->most; at++) {
        const dg__place *place = &informed->places[informed->choice_step[informed->choices[at]]];
        int32_t count = informed->choice_count[informed->choices[at]], further = 0;
        if (count < 0) { /* the first of order, the last of them swapped */
            memcpy(there->chosen, place->order, (size_t)place->count * sizeof *place->order);
            there->chosen[place->count - 1] = place->order[-count];
            count = place->count;
        } else {
            memcpy(there->chosen, place->order, (size_t)count * sizeof *place->order);
        }
        if (!dg__reach(informed, place, there->chosen, count, there)) continue;
        if (there->known < 0) dg__add(informed, rows, block, there->state);
        while (further < informed->settings.follow && rows->count < rows->most) {
            dg__place *held = there;
            dg__step(informed, there);
            if (!dg__reach(informed, there, there->chosen, there->count, then)) break;
            if (then->known < 0) {
                dg__add(informed, rows, block, then->state);
                further++;
            }
            there = then;
            then = held;
        }
    }
}

/*
 * What the next forward should evaluate beside `block` [L], the state that dg_informed_walk reached, which is not
 * complete; `base` is from there. drafts [informed->drafts, L] are states of the block, distinct, none complete;
 * returns how many there are.
 */
static inline int32_t dg_informed_propose(dg_informed *informed, const int32_t *block, int32_t base, int32_t *drafts) {
    const size_t L = (size_t)informed->length;
    const int32_t most = informed->settings.horizon && informed->settings.horizon < informed->drafts
                             ? informed->settings.horizon
                             : informed->drafts;
    dg__place *place = &informed->places[0];
    int32_t at = 0, steps = 0, proposed = 0, position, size = 0;
    dg__rows rows;
    rows.drafts = drafts;
    rows.count = 0;
    rows.most = informed->drafts;
    if (base < 0 || base >= informed->count) return 0;
    dg__place_at(informed, place, base);
    place->known = -1; /* of the block itself nothing is known */
    memcpy(place->state, block, L * sizeof *block);
    for (position = 0; position < informed->length; position++)
        if (informed->states[(size_t)base * L + (size_t)position] != block[position])
            informed->scratch[size++] = position;
    dg__expect(informed, place, informed->scratch, size);
    while (proposed < most && rows.count < rows.most) {
        dg__step(informed, place);
        if (!place->count) break; /* nothing is masked */
        informed->steps[steps++] = at;
        if (!dg__reach(informed, place, place->chosen, place->count, &informed->places[at + 1])) break;
        place = &informed->places[++at];
        if (place->known < 0) {
            dg__add(informed, &rows, block, place->state);
            proposed++;
        }
    }
    if (informed->settings.alternatives) dg__alternatives(informed, steps, &rows, block);
    return rows.count;
}

#ifdef __cplusplus
}
#endif
#endif
