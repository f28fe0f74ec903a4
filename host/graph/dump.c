/* dump.c - a graph as text, one live tensor a line, and as Graphviz dot. */
#include "graph/graph.h"

static const char *kind_name(const Tensor *t)
{
    static const char *const leaf[] = {"input", "param", "state"};
    return t->owner ? "side" : t->op ? t->op->name : leaf[t->kind];
}

void graph_dump_text(const Graph *g, Text *out)
{
    char shape[64];
    for (int i = 0; i < g->n; i++) {
        const Tensor *t = g->node[i];
        if (!t->live) continue;
        text_add(out, "%5d %-20s %-20s", i, kind_name(t), tensor_shape_text(t, shape));
        for (int k = 0; k < MAX_SRC; k++)
            if (t->src[k]) text_add(out, " %d", t->src[k]->id);
        text_add(out, "  %s%s\n", t->name, t->held ? "  held" : "");
    }
}

void graph_dump_dot(const Graph *g, Text *out)
{
    char shape[64];
    text_add(out, "digraph equipoise {\n  node [shape=box, fontname=monospace];\n");
    for (int i = 0; i < g->n; i++) {
        const Tensor *t = g->node[i];
        if (!t->live || t->owner) continue;
        text_add(out, "  n%d [label=\"%s\\n%s\\n%s\"%s];\n", i, kind_name(t),
                 tensor_shape_text(t, shape), t->name, t->op ? "" : ", style=filled");
        for (int k = 0; k < MAX_SRC; k++)
            if (t->src[k])
                text_add(out, "  n%d -> n%d;\n",
                         t->src[k]->owner ? t->src[k]->owner->id : t->src[k]->id, i);
    }
    text_add(out, "}\n");
}
