/*
 * Hostile input for draftgraph.h: files for the loader, logits and graphs for the core, decodes for informed drafts.
 *
 * With clang it is a libFuzzer target (-fsanitize=fuzzer); with -DDG_FUZZ_MAIN it has a main of its own, which mutates
 * seeds at random: fuzz INPUTS SEED FILE... (or SECONDSs for INPUTS) The first byte of an input says what it is for; docs/runtime-c.md has the
 * commands. Every array lies in memory of exactly its size, so that the sanitizers see one step too far.
 */
#include <stdio.h>
#include <stdlib.h>

#include "draftgraph.h"

#define MUST(condition)                                                   \
    do {                                                                  \
        if (!(condition)) {                                               \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition); \
            abort();                                                      \
        }                                                                 \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

static unsigned long counted[8]; /* what the inputs led to, for the report of the plain driver */

static void *exactly(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    MUST(memory);
    return memory;
}

/* Numbers out of the input; behind its end numbers that follow from those before. */
typedef struct {
    const uint8_t *at, *end;
    uint32_t more;
} source;

static uint32_t number(source *from, int bytes) {
    uint32_t value = 0;
    for (; bytes > 0; bytes--) {
        uint32_t next = from->at < from->end ? *from->at++ : from->more >> 24;
        from->more = (from->more ^ next) * 1664525u + 1013904223u;
        value = value << 8 | next;
    }
    return value;
}

static int32_t within(source *from, int32_t low, int32_t high) {
    return low + (int32_t)(number(from, 1) % (uint32_t)(high - low + 1));
}

static void check_message(const dg_error *error) {
    char line[64], shorter[3];
    dg_message(error, line, sizeof line);
    MUST(strlen(line) > 10 && strlen(line) < sizeof line);
    dg_message(error, shorter, sizeof shorter);
    MUST(strlen(shorter) == 2);
    dg_message(error, shorter, 0);
}

/* A graph that was taken is filled at every number of masked positions; what comes must be what the formulas say. */
static void use_graph(const dg_graph *graph) {
    const int32_t length = graph->block_length > 40 ? 40 : graph->block_length, top_j = graph->top_j > 5 ? 5 : graph->top_j;
    const int32_t nodes = graph->nodes;
    int32_t *state, *drafts, *path, *successor, masked, k, node;
    unsigned char *usable;
    dg_ranks ranks;
    dg_arena arena = dg_arena_of(NULL, 0);
    void *memory;
    dg_error error;
    if ((size_t)nodes * (size_t)length > 200000) return;
    MUST(dg_ranks_init(&ranks, &arena, length, top_j, &error) == DG_MEMORY);
    memory = exactly(arena.needed);
    arena = dg_arena_of(memory, arena.needed);
    MUST(dg_ranks_init(&ranks, &arena, length, top_j, &error) == DG_OK);
    state = (int32_t *)exactly(sizeof *state * (size_t)length);
    drafts = (int32_t *)exactly(sizeof *drafts * (size_t)length * (size_t)nodes);
    usable = (unsigned char *)exactly((size_t)nodes);
    path = (int32_t *)exactly(sizeof *path * (size_t)nodes);
    successor = (int32_t *)exactly(sizeof *path * (size_t)nodes);
    ranks.depth = top_j;
    for (masked = 0; masked <= length; masked++) {
        int32_t count, cut;
        ranks.masked = masked;
        for (k = 0; k < length; k++) {
            state[k] = k < length - masked ? 7 : 0;
            ranks.order[k] = k < masked ? length - 1 - k : -1;
            ranks.tokens[k * top_j] = k < length - masked ? -1 : 100;
            for (node = 1; node < top_j; node++) ranks.tokens[k * top_j + node] = 100 + node;
        }
        count = dg_fill(graph, &ranks, state, length, 0, drafts, usable);
        MUST(usable[0] == 1 && count >= 1 && count <= nodes);
        for (node = 1; node < nodes; node++) {
            int32_t changed = 0, fits;
            for (k = 0; k < length; k++) changed += drafts[node * length + k] != state[k];
            fits = graph->min_masked[node] <= masked && graph->max_j[node] <= top_j;
            MUST(usable[node] == fits && changed == (fits ? graph->lengths[node] : 0));
        }
        for (node = 0; node < nodes; node++) successor[node] = node + 1 < nodes && usable[node + 1] ? node + 1 : -1;
        MUST(dg_walk(successor, nodes, path) >= 0);
        cut = dg_cut(graph, nodes / 2, usable);
        MUST(cut >= 1 && cut <= count && cut <= nodes / 2 + 1 && usable[0]);
        for (node = 1; node < nodes; node++) {
            /* What is left is a graph: a formula's parent needs no rank that the formula does not need. */
            int32_t at, parents = 0;
            for (at = graph->parent_ptr[node]; at < graph->parent_ptr[node + 1]; at++)
                parents += usable[graph->parent_index[at]];
            MUST(!usable[node] || parents);
        }
    }
    free(memory);
    free(state);
    free(drafts);
    free(usable);
    free(path);
    free(successor);
}

static void fuzz_load(const uint8_t *data, size_t size) {
    uint8_t *file = (uint8_t *)exactly(size);
    size_t bytes = dg_load_bytes(size);
    void *memory = exactly(bytes);
    dg_arena arena = dg_arena_of(memory, bytes);
    dg_graph graph;
    dg_error error;
    int status;
    memcpy(file, data, size);
    status = dg_load(file, size, &arena, &graph, &error);
    MUST(status == DG_OK || (status == DG_FORMAT && error.status == DG_FORMAT));
    if (status == DG_OK) {
        counted[0]++;
        arena = dg_arena_of(memory, bytes);
        MUST(dg_load(file, size, &arena, &graph, &error) == DG_OK);
        free(file); /* what was loaded stands alone */
        file = NULL;
        use_graph(&graph);
        MUST(dg_check_validity(&graph, graph.model, graph.policy, graph.block_length, graph.cache, graph.temperature,
                               graph.top_j, graph.schedule, &error) == DG_OK);
        MUST(dg_check_validity(&graph, NULL, "?", 1, NULL, NULL, 0, "?", &error) == DG_MISMATCH);
        check_message(&error);
    } else {
        counted[1]++;
        check_message(&error);
    }
    free(file);
    free(memory);
}

/* A small arena: never more than it holds is taken, and no load succeeds in half of what the arrays need. */
static void fuzz_arena(const uint8_t *data, size_t size) {
    size_t bytes = size > 3 ? (size_t)data[0] << 8 | data[1] : 0;
    void *memory = exactly(bytes);
    dg_arena arena = dg_arena_of(memory, bytes);
    dg_graph graph;
    int status;
    if (size > 3) {
        status = dg_load(data + 2, size - 2, &arena, &graph, NULL);
        MUST(arena.used <= bytes);
        if (status == DG_OK) use_graph(&graph);
        counted[2]++;
    }
    free(memory);
}

static void fuzz_core(const uint8_t *data, size_t size) {
    source from;
    int32_t length, vocabulary, top_j, nodes, pairs, mask, k, node;
    int32_t *state, *drafts, *formulas, *lengths, *following, *successor, *path, *other, *reached;
    unsigned char *usable;
    float *logits, *rows;
    dg_graph graph;
    dg_ranks ranks;
    dg_arena arena = dg_arena_of(NULL, 0);
    dg_accepted accepted;
    dg_rule rule;
    dg_error error;
    void *memory;
    int status, complete, wild;
    from.at = data;
    from.end = data + size;
    from.more = 1;
    length = within(&from, 1, 8);
    vocabulary = within(&from, 2, 9);
    top_j = within(&from, 1, 4);
    nodes = within(&from, 1, 9);
    pairs = within(&from, 1, 4);
    mask = within(&from, 0, vocabulary - 1);
    complete = within(&from, 0, 1);
    wild = within(&from, 0, 3);
    k = within(&from, 0, 5);
    rule = dg_static(k);
    if (within(&from, 0, 1)) {
        rule.has_tau = 1;
        rule.strict = within(&from, 0, 1);
        rule.tau = 1.0 / within(&from, 0, 4); /* also infinite */
        if (wild == 0) {
            uint64_t bits = (uint64_t)number(&from, 4) << 32 | number(&from, 4);
            memcpy(&rule.tau, &bits, sizeof bits);
        }
    }
    memset(&graph, 0, sizeof graph);
    state = (int32_t *)exactly(sizeof *state * (size_t)length);
    reached = (int32_t *)exactly(sizeof *state * (size_t)length);
    formulas = (int32_t *)exactly(sizeof *state * (size_t)(nodes * pairs * 2));
    lengths = (int32_t *)exactly(sizeof *state * (size_t)nodes);
    drafts = (int32_t *)exactly(sizeof *state * (size_t)(nodes * length));
    following = (int32_t *)exactly(sizeof *state * (size_t)(nodes * length));
    successor = (int32_t *)exactly(sizeof *state * (size_t)nodes);
    path = (int32_t *)exactly(sizeof *state * (size_t)nodes);
    other = (int32_t *)exactly(sizeof *state * (size_t)nodes);
    usable = (unsigned char *)exactly((size_t)nodes);
    logits = (float *)exactly(sizeof *logits * (size_t)(length * vocabulary));
    rows = (float *)exactly(sizeof *rows * (size_t)(nodes * length * vocabulary));
    for (k = 0; k < length; k++) state[k] = within(&from, 0, 2) ? mask : within(&from, 0, vocabulary - 1);
    for (node = 0; node < nodes; node++) {
        int likely = within(&from, 0, 3) > 0; /* what comes next if nothing changes */
        lengths[node] = node ? within(&from, 1 - (wild == 1), pairs) : 0;
        for (k = 0; k < 2 * pairs; k++)
            formulas[node * 2 * pairs + k] = wild == 1 ? (int32_t)number(&from, 4)
                                             : likely  ? (k % 2 ? 1 : k / 2 + 1)
                                                       : within(&from, 0, 6);
    }
    for (k = 0; k < length * vocabulary; k++) {
        uint32_t bits = wild == 2 ? number(&from, 4) : 0;
        if (wild == 2) memcpy(&logits[k], &bits, 4);
        else logits[k] = (float)within(&from, 0, 3);
    }
    for (node = 0; node < nodes; node++)
        for (k = 0; k < length * vocabulary; k++) {
            uint32_t bits = wild == 2 && within(&from, 0, 9) == 0 ? number(&from, 4) : 0;
            rows[node * length * vocabulary + k] = wild == 2 ? 0.0f : logits[k] + (float)(within(&from, 0, 9) == 0);
            if (bits) memcpy(&rows[node * length * vocabulary + k], &bits, 4);
        }
    graph.nodes = nodes;
    graph.pairs = pairs;
    graph.formulas = formulas;
    graph.lengths = lengths;
    MUST(dg_ranks_init(&ranks, &arena, length, top_j, &error) == DG_MEMORY);
    memory = exactly(arena.needed);
    arena = dg_arena_of(memory, arena.needed);
    MUST(dg_ranks_init(&ranks, &arena, length, top_j, &error) == DG_OK);
    status = dg_rank(logits, state, length, vocabulary, mask, &ranks, &error);
    MUST(status == DG_OK || status == DG_NUMBER);
    counted[status == DG_OK ? 3 : 4]++;
    if (status == DG_OK) {
        dg_fill(&graph, &ranks, state, length, complete, drafts, usable);
        for (k = 1; k < ranks.masked; k++)
            MUST(ranks.confidence[ranks.order[k]] <= ranks.confidence[ranks.order[k - 1]]);
        for (node = 0; node < nodes; node++) {
            memcpy(following + node * length, drafts + node * length, sizeof *state * (size_t)length);
            if (!usable[node]) continue;
            status = dg_rank(rows + node * length * vocabulary, drafts + node * length, length, vocabulary, mask, &ranks,
                             &error);
            if (status) break;
            dg_commit(&ranks, &rule, following + node * length);
        }
        dg_match(drafts, usable, following, nodes, length, successor);
        dg_walk(successor, nodes, other);
        status |= dg_accept(rows, NULL, drafts, usable, nodes, length, vocabulary, mask, &rule, &ranks, path, reached,
                            &accepted, &error);
        MUST(status == DG_OK || status == DG_NUMBER);
        if (status == DG_OK) { /* all rows are sound: the short way and the long way are the same */
            MUST(!memcmp(path, other, sizeof *path * (size_t)nodes));
            MUST(!memcmp(reached, following + accepted.last * length, sizeof *state * (size_t)length));
            MUST(path[accepted.accepted] == accepted.last && (accepted.accepted + 1 == nodes || path[accepted.accepted + 1] == -1));
            counted[5] += (unsigned long)accepted.accepted;
        }
    } else {
        check_message(&error);
    }
    free(memory);
    free(state);
    free(reached);
    free(formulas);
    free(lengths);
    free(drafts);
    free(following);
    free(successor);
    free(path);
    free(other);
    free(usable);
    free(logits);
    free(rows);
}

/* Decodes a few blocks; the "model" answers by the input, so that the same state may be answered in different ways. */
static void fuzz_informed(const uint8_t *data, size_t size) {
    source from;
    int32_t length, drafts, k, rounds, round, n = 1, mask = 0;
    int32_t *states, *tokens, *block;
    double *confidences;
    dg_settings settings = dg_default_settings();
    dg_informed informed;
    dg_arena arena = dg_arena_of(NULL, 0);
    dg_rule rule;
    dg_error error;
    dg_walked walked;
    void *memory;
    int status, wild;
    from.at = data;
    from.end = data + size;
    from.more = 1;
    length = within(&from, 1, 9);
    drafts = within(&from, 0, 6);
    rule = within(&from, 0, 1) ? dg_static(within(&from, 1, 3)) : dg_threshold((within(&from, 0, 20) + 1) / 21.0, within(&from, 0, 1));
    rule.least = within(&from, 0, 3) ? rule.least : within(&from, 0, 3);
    settings.coefficient = within(&from, 0, 3) ? 1.0 : within(&from, 0, 1) ? 1e308 : within(&from, 0, 7) / 3.0;
    settings.horizon = within(&from, 0, 3);
    settings.alternatives = within(&from, 0, 3) > 0;
    settings.width = within(&from, 0, 4);
    settings.follow = within(&from, 0, 3);
    settings.forwards = within(&from, 0, 5);
    settings.influences = within(&from, 0, 20) * within(&from, 0, 1);
    wild = within(&from, 0, 7) == 0;
    rounds = within(&from, 1, 30);
    status = dg_informed_init(&informed, &arena, length, drafts, mask, rule, settings, &error);
    MUST(status == DG_ARGUMENT || status == DG_MEMORY);
    if (status == DG_ARGUMENT) {
        check_message(&error);
        return;
    }
    memory = exactly(arena.needed);
    arena = dg_arena_of(memory, arena.needed - 1);
    MUST(dg_informed_init(&informed, &arena, length, drafts, mask, rule, settings, &error) == DG_MEMORY);
    arena = dg_arena_of(memory, arena.needed);
    MUST(dg_informed_init(&informed, &arena, length, drafts, mask, rule, settings, &error) == DG_OK);
    states = (int32_t *)exactly(sizeof *states * (size_t)((1 + drafts) * length));
    tokens = (int32_t *)exactly(sizeof *states * (size_t)((1 + drafts) * length));
    block = (int32_t *)exactly(sizeof *states * (size_t)length);
    confidences = (double *)exactly(sizeof *confidences * (size_t)((1 + drafts) * length));
    for (k = 0; k < length; k++) states[k] = mask;
    for (round = 0; round < rounds; round++) {
        int32_t row, other, masked;
        for (k = 0; k < n * length; k++) {
            tokens[k] = within(&from, wild ? 0 : 1, 3);
            confidences[k] = (within(&from, 0, 30) + (wild ? 0 : 1)) / 31.0;
            if (wild && within(&from, 0, 30) == 0) {
                uint64_t bits = (uint64_t)number(&from, 4) << 32 | number(&from, 4);
                memcpy(&confidences[k], &bits, sizeof bits);
            }
        }
        status = dg_informed_learn(&informed, n, states, tokens, confidences, &error);
        MUST(status == DG_OK || (wild && status == DG_NUMBER));
        if (status) {
            check_message(&error);
            if (dg_informed_walk(&informed, block, &walked, &error)) break;
            continue;
        }
        MUST(dg_informed_walk(&informed, block, &walked, &error) == DG_OK);
        if (walked.complete) {
            for (k = 0; k < length; k++) MUST(block[k] != mask);
            counted[6]++;
            if (within(&from, 0, 3)) dg_informed_start_block(&informed);
            for (k = 0; k < length; k++) states[k] = mask;
            n = 1;
            continue;
        }
        MUST(dg_informed_find(&informed, block) < 0);
        memcpy(states, block, sizeof *block * (size_t)length);
        n = 1 + dg_informed_propose(&informed, block, walked.base, states + length);
        MUST(n <= 1 + drafts);
        counted[7] += (unsigned long)n - 1;
        for (row = 1; row < n; row++) { /* larger than the block, not complete, not known, distinct */
            masked = 0;
            for (k = 0; k < length; k++) {
                MUST(block[k] == mask || states[row * length + k] == block[k]);
                masked += states[row * length + k] == mask;
            }
            MUST(masked > 0 && dg_informed_find(&informed, states + row * length) < 0);
            for (other = 0; other < row; other++)
                MUST(memcmp(states + row * length, states + other * length, sizeof *states * (size_t)length));
        }
    }
    free(memory);
    free(states);
    free(tokens);
    free(block);
    free(confidences);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    switch (data[0]) {
        case 'L': fuzz_load(data + 1, size - 1); break;
        case 'A': fuzz_arena(data + 1, size - 1); break;
        case 'I': fuzz_informed(data + 1, size - 1); break;
        default: fuzz_core(data + 1, size - 1); break;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- mutation */

static uint32_t chance = 1;

static uint32_t any(uint32_t below) {
    chance ^= chance << 13;
    chance ^= chance >> 17;
    chance ^= chance << 5;
    return below ? chance % below : 0;
}

static void shift(uint8_t *data, size_t *size, size_t at, size_t removed, const uint8_t *added, size_t count) {
    memmove(data + at + count, data + at + removed, *size - at - removed);
    memcpy(data + at, added, count);
    *size += count;
    *size -= removed;
}

/* A change that leaves a file a file: numbers of the arrays, words and digits of the header, its length kept right. */
static size_t mutate_file(uint8_t *data, size_t size, size_t most) {
    static const int32_t values[] = {0, 1, 2, 3, -1, 8, 32, 255, 65535, 65536, INT32_MAX, INT32_MIN, 1 << 20};
    static const char *const words[] = {"\"", "{", "}", "[", "]", ",", ":", " ", "\\\"", "\\u0022", "0", "-1", "9", "00",
                                        "1e9", "null", "99999999", "18446744073709551616", "\"F32\"", "\"I32\"", "\xff",
                                        "\xc3\xa9", "\xed\xa0\x80", "\"shape\":[4]", "\"__metadata__\":{}", "static:2"};
    size_t begin = data[0] == 'A' ? 3 : 1, header, at;
    if (size < begin + 12) return size;
    header = (size_t)data[begin] | (size_t)data[begin + 1] << 8;
    if (header > size - begin - 8) header = size - begin - 8;
    if (any(2) && size > begin + 8 + header + 4) { /* an array */
        size_t numbers = (size - begin - 8 - header) / 4;
        int32_t value = values[any(sizeof values / sizeof *values)];
        at = begin + 8 + header + 4 * any((uint32_t)numbers);
        if (any(2)) {
            memcpy(&value, data + begin + 8 + header + 4 * any((uint32_t)numbers), 4);
            if (any(2)) value = (int32_t)((uint32_t)value + any(3) - 1);
        }
        memcpy(data + at, &value, 4);
        return size;
    }
    at = begin + 8 + any((uint32_t)header + 1);
    if (any(3) == 0) { /* a number of the header */
        while (at < begin + 8 + header && !(data[at] >= '0' && data[at] <= '9')) at++;
        if (at < begin + 8 + header) data[at] = (uint8_t)('0' + any(10));
        return size;
    }
    {
        const char *word = words[any(sizeof words / sizeof *words)];
        uint8_t copied[64];
        size_t count = any(3) ? strlen(word) : any(64), removed = any(2) ? 0 : any(24);
        if (removed > begin + 8 + header - at) removed = begin + 8 + header - at;
        if (size + count > most) return size;
        if (count < 64 && any(3) == 0 && at + count <= size) memcpy(copied, data + at, count); /* twice */
        else if (count <= strlen(word)) memcpy(copied, word, count);
        else count = 0;
        if (any(5) == 0 && at + removed + count <= size) { /* in place, nothing moved */
            memcpy(data + at, copied, count);
            return size;
        }
        shift(data, &size, at, removed, copied, count);
        header = header + count - removed;
        data[begin] = (uint8_t)header;
        data[begin + 1] = (uint8_t)(header >> 8);
    }
    return size;
}

#ifdef DG_FUZZ_MAIN
static size_t mutate_bytes(uint8_t *data, size_t size, size_t most) {
    size_t at = 1 + any((uint32_t)size);
    uint8_t fresh[16];
    size_t k, count = 1 + any(16);
    for (k = 0; k < count; k++) fresh[k] = (uint8_t)any(256);
    if (at >= size || any(4) == 0) {
        if (size + count <= most) shift(data, &size, at < size ? at : size, 0, fresh, count);
    } else if (any(8) == 0) {
        shift(data, &size, at, count < size - at ? count : size - at, fresh, 0);
    } else {
        data[at] = any(2) ? fresh[0] : (uint8_t)(data[at] + any(3) - 1);
    }
    return size;
}
#endif

#ifndef DG_FUZZ_MAIN
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    chance = seed | 1;
    if (size && (data[0] == 'L' || data[0] == 'A') && any(4)) {
        uint32_t times = 1 + any(3);
        for (; times; times--) size = mutate_file(data, size, max_size);
        return size;
    }
    return LLVMFuzzerMutate(data, size, max_size);
}
#else
#include <time.h>

int main(int arguments, char **argument) {
    enum { MOST = 1 << 16, KINDS = 64 };
    static uint8_t seeds[KINDS][MOST], data[MOST];
    size_t sizes[KINDS], count = 0, size;
    unsigned long runs = 0, most;
    time_t end;
    char *rest;
    int k;
    if (arguments < 3) {
        fprintf(stderr, "usage: fuzz INPUTS|SECONDSs SEED FILE...\n");
        return 2;
    }
    chance = (uint32_t)strtoul(argument[2], NULL, 10) | 1;
    for (k = 3; k < arguments && count < KINDS; k++) {
        FILE *file = fopen(argument[k], "rb");
        MUST(file);
        sizes[count] = fread(seeds[count], 1, MOST - 4096, file);
        MUST(sizes[count] > 0);
        fclose(file);
        LLVMFuzzerTestOneInput(seeds[count], sizes[count]);
        count++;
    }
    most = strtoul(argument[1], &rest, 10);
    end = time(NULL) + (time_t)most;
    while (*rest == 's' ? time(NULL) < end : runs < most) {
        int round;
        for (round = 0; round < 200 && (*rest == 's' || runs < most); round++, runs++) {
            uint32_t times = any(5), seed = any((uint32_t)count + 2);
            if (seed < count) {
                size = sizes[seed];
                memcpy(data, seeds[seed], size);
            } else {
                size = 1 + any(1500);
                for (k = 1; k < (int)size; k++) data[k] = (uint8_t)any(256);
                data[0] = seed == count ? 'C' : 'I';
            }
            for (; times; times--)
                size = (data[0] == 'L' || data[0] == 'A') && any(8) ? mutate_file(data, size, MOST)
                                                                    : mutate_bytes(data, size, MOST);
            LLVMFuzzerTestOneInput(data, size);
        }
    }
    printf("%lu inputs: %lu files taken, %lu refused, %lu in small arenas; %lu distributions ranked, %lu refused, %lu "
           "drafts accepted; %lu blocks of informed drafts, %lu proposals\n",
           runs, counted[0], counted[1], counted[2], counted[3], counted[4], counted[5], counted[6], counted[7]);
    return 0;
}
#endif
