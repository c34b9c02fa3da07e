/*
 * draftgraph.h behind a pipe: commands from stdin, answers to stdout, both binary (tests/support/c_header.py).
 *
 * A command is an int32 and its arguments; an answer is a list of frames (kind: 0 int32, 1 double, 2 bytes; count;
 * numbers), closed by a frame of kind -1. Every array lies in memory of exactly its size.
 */
#include <stdio.h>
#include <stdlib.h>

#include "draftgraph.h"

static void *room(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) exit(3);
    return memory;
}

static void *read_bytes(size_t bytes) {
    void *memory = room(bytes);
    if (fread(memory, 1, bytes, stdin) != bytes) exit(4);
    return memory;
}

static int32_t *read_numbers(int32_t count) { return (int32_t *)read_bytes(4 * (size_t)count); }

static int32_t read_number(void) {
    int32_t *held = read_numbers(1), value = *held;
    free(held);
    return value;
}

static double read_double(void) {
    double *held = (double *)read_bytes(8), value = *held;
    free(held);
    return value;
}

static void frame(int32_t kind, const void *numbers, int32_t count) {
    fwrite(&kind, 4, 1, stdout);
    fwrite(&count, 4, 1, stdout);
    if (count) fwrite(numbers, kind == 0 ? 4 : kind == 1 ? 8 : 1, (size_t)count, stdout);
}

static void numbers(const int32_t *values, int32_t count) { frame(0, values, count); }

static void number(int32_t value) { numbers(&value, 1); }

static void text(const char *words) { frame(2, words, words ? (int32_t)strlen(words) : 0); }

static void close_answer(int status, const dg_error *error) {
    char message[300];
    if (status) {
        number(status);
        text(dg_message(error, message, sizeof message));
    }
    frame(-1, NULL, 0);
    fflush(stdout);
}

static dg_rule read_rule(void) {
    dg_rule rule;
    rule.least = read_number();
    rule.has_tau = read_number();
    rule.strict = read_number();
    rule.tau = read_double();
    return rule;
}

static void core(void) {
    int32_t length = read_number(), vocabulary = read_number(), mask = read_number(), top_j = read_number();
    int32_t nodes = read_number(), pairs = read_number(), complete = read_number(), node, packed = 0;
    dg_rule rule = read_rule();
    int32_t *formulas = read_numbers(nodes * pairs * 2), *lengths = read_numbers(nodes), *state = read_numbers(length);
    float *logits = (float *)read_bytes(sizeof *logits * (size_t)(length * vocabulary));
    float *rows = (float *)read_bytes(sizeof *rows * (size_t)(nodes * length * vocabulary));
    int32_t *drafts = (int32_t *)room(4 * (size_t)(nodes * length)), *following = (int32_t *)room(4 * (size_t)(nodes * length));
    int32_t *path = (int32_t *)room(4 * (size_t)nodes), *walked = (int32_t *)room(4 * (size_t)nodes);
    int32_t *successor = (int32_t *)room(4 * (size_t)nodes), *wide = (int32_t *)room(4 * (size_t)nodes);
    int32_t *row_of = (int32_t *)room(4 * (size_t)nodes), *reached = (int32_t *)room(4 * (size_t)length);
    unsigned char *usable = (unsigned char *)room((size_t)nodes);
    dg_arena arena = dg_arena_of(NULL, 0);
    void *memory;
    dg_graph graph;
    dg_ranks ranks;
    dg_accepted accepted;
    dg_error error;
    int status;
    memset(&graph, 0, sizeof graph);
    graph.nodes = nodes;
    graph.pairs = pairs;
    graph.formulas = formulas;
    graph.lengths = lengths;
    if (dg_ranks_init(&ranks, &arena, length, top_j, &error) != DG_MEMORY) exit(5);
    memory = room(arena.needed);
    arena = dg_arena_of(memory, arena.needed);
    status = dg_ranks_init(&ranks, &arena, length, top_j, &error);
    if (!status) status = dg_rank(logits, state, length, vocabulary, mask, &ranks, &error);
    if (!status) {
        numbers(ranks.order, length);
        numbers(ranks.tokens, length * top_j);
        frame(1, ranks.confidence, length);
        number(dg_fill(&graph, &ranks, state, length, complete, drafts, usable));
        for (node = 0; node < nodes; node++) wide[node] = usable[node];
        numbers(wide, nodes);
        numbers(drafts, nodes * length);
        /* The rows of usable drafts alone, as a server has them. */
        for (node = 0; node < nodes; node++) {
            const size_t size = (size_t)(length * vocabulary);
            row_of[node] = usable[node] ? packed++ : -1;
            if (usable[node]) memmove(rows + (size_t)row_of[node] * size, rows + (size_t)node * size, size * sizeof *rows);
        }
        rows = (float *)realloc(rows, sizeof *rows * (size_t)(packed * length * vocabulary));
        memcpy(following, drafts, 4 * (size_t)(nodes * length));
        for (node = 0; node < nodes && !status; node++) {
            if (!usable[node]) continue;
            status = dg_rank(rows + (size_t)(row_of[node] * length * vocabulary), drafts + node * length, length, vocabulary,
                             mask, &ranks, &error);
            if (!status) dg_commit(&ranks, &rule, following + node * length);
        }
    }
    if (!status) {
        dg_match(drafts, usable, following, nodes, length, successor);
        number(dg_walk(successor, nodes, walked));
        numbers(walked, nodes);
        numbers(following, nodes * length);
        status = dg_accept(rows, row_of, drafts, usable, nodes, length, vocabulary, mask, &rule, &ranks, path, reached,
                           &accepted, &error);
    }
    if (!status) {
        numbers(path, nodes);
        numbers(reached, length);
        number(accepted.accepted);
        number(accepted.last);
        number(accepted.committed);
    }
    close_answer(status, &error);
    free(formulas);
    free(lengths);
    free(state);
    free(logits);
    free(rows);
    free(drafts);
    free(following);
    free(path);
    free(walked);
    free(successor);
    free(wide);
    free(row_of);
    free(reached);
    free(usable);
    free(memory);
}

static void load(void) {
    int32_t size = read_number(), less = read_number(), cut = read_number();
    unsigned char *file = (unsigned char *)read_bytes((size_t)size);
    size_t bytes = dg_load_bytes((size_t)size) / (size_t)less;
    void *memory = room(bytes);
    dg_arena arena = dg_arena_of(memory, bytes);
    dg_graph graph;
    dg_error error;
    int status = dg_load(file, (size_t)size, &arena, &graph, &error);
    memset(file, 255, (size_t)size); /* the graph stands alone */
    free(file);
    if (!status) {
        int32_t nodes = graph.nodes, node;
        unsigned char *usable = (unsigned char *)room((size_t)nodes);
        int32_t *wide = (int32_t *)room(4 * (size_t)nodes);
        number(graph.edges);
        number(graph.max_formula);
        number(graph.block_length);
        number(graph.top_j);
        numbers(graph.formulas, nodes * graph.pairs * 2);
        numbers(graph.lengths, nodes);
        numbers(graph.depth, nodes);
        numbers(graph.parent_ptr, nodes + 1);
        numbers(graph.parent_index, graph.edges);
        numbers(graph.child_ptr, nodes + 1);
        numbers(graph.child_index, graph.edges);
        numbers(graph.max_i, nodes);
        numbers(graph.max_j, nodes);
        numbers(graph.min_masked, nodes);
        numbers(graph.completes_at, nodes);
        numbers(graph.truncation, nodes);
        frame(2, graph.truncation_value, 4 * nodes);
        text(graph.model);
        text(graph.model_revision);
        text(graph.policy);
        text(graph.cache);
        text(graph.temperature);
        text(graph.schedule);
        text(graph.truncation_split);
        memset(usable, 1, (size_t)nodes);
        number(dg_cut(&graph, cut, usable));
        for (node = 0; node < nodes; node++) wide[node] = usable[node];
        numbers(wide, nodes);
        free(usable);
        free(wide);
        status = dg_check_validity(&graph, "toy", "static:1", 6, "dual", "0.0", 3, NULL, &error);
    }
    close_answer(status, &error);
    free(memory);
}

static void informed(void) {
    int32_t length = read_number(), drafts = read_number(), mask = read_number(), forwards;
    dg_rule rule = read_rule();
    dg_settings settings = dg_default_settings();
    dg_informed one;
    dg_arena arena = dg_arena_of(NULL, 0);
    dg_walked walked;
    dg_error error;
    void *memory;
    int32_t *block = (int32_t *)room(4 * (size_t)length), *proposed;
    int status;
    settings.coefficient = read_double();
    settings.horizon = read_number();
    settings.alternatives = read_number();
    settings.width = read_number();
    settings.follow = read_number();
    forwards = read_number();
    proposed = (int32_t *)room(4 * (size_t)(drafts * length));
    (void)dg_informed_init(&one, &arena, length, drafts, mask, rule, settings, &error);
    memory = room(arena.needed);
    arena = dg_arena_of(memory, arena.needed);
    status = dg_informed_init(&one, &arena, length, drafts, mask, rule, settings, &error);
    number((int32_t)arena.needed);
    for (; forwards > 0; forwards--) {
        int32_t begins = read_number(), n = read_number();
        int32_t *states = read_numbers(n * length), *tokens = read_numbers(n * length);
        double *confidences = (double *)read_bytes(8 * (size_t)(n * length));
        if (!status && begins) dg_informed_start_block(&one);
        if (!status) status = dg_informed_learn(&one, n, states, tokens, confidences, &error);
        if (!status) status = dg_informed_walk(&one, block, &walked, &error);
        free(states);
        free(tokens);
        free(confidences);
        if (status) continue;
        number(walked.steps);
        number(walked.complete);
        numbers(block, length);
        numbers(proposed, walked.complete ? 0 : length * dg_informed_propose(&one, block, walked.base, proposed));
        number(one.used);
    }
    close_answer(status, &error);
    free(block);
    free(proposed);
    free(memory);
}

int main(void) {
    int32_t command;
    while (fread(&command, 4, 1, stdin) == 1) {
        if (command == 1) core();
        else if (command == 2) load();
        else if (command == 3) informed();
        else return 2;
    }
    return 0;
}
