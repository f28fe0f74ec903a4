/* cudart_graph.cpp - stream capture, and graphs that replay it.
 *
 * A graph's nodes know which nodes they follow. A replay runs them in an order that respects this
 * and nothing else (the latest captured branch first), so that a missing dependency shows.
 */
#include "cudart.h"
#include <algorithm>

namespace hostcuda {

namespace {

std::set<Capture *> &captures()
{
    static std::set<Capture *> live;
    return live;
}

struct Exec {
    std::shared_ptr<Graph> graph;
};
std::set<Exec *> &execs()
{
    static std::set<Exec *> live;
    return live;
}
std::set<Graph *> &graphs()
{
    static std::set<Graph *> live;
    return live;
}

cudaStreamCaptureMode &thread_mode()
{
    static cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    return mode;
}

struct Replay {
    const Graph &graph;
    std::vector<char> ran;

    cudaError_t run(size_t n)
    {
        if (ran[n]) return cudaSuccess;
        ran[n] = 1;
        const Node &node = graph.nodes[n];
        for (size_t before : node.after)
            if (cudaError_t e = run(before)) return e;
        return node.work.run ? node.work.run() : cudaSuccess;
    }
};

cudaError_t replay(const Graph &g)
{
    Replay r{g, std::vector<char>(g.nodes.size())};
    for (size_t n = 0; n < g.nodes.size(); n++) {
        size_t next = stream_mode() == EAGER ? n : g.nodes.size() - 1 - n;
        if (cudaError_t e = r.run(next)) return e;
    }
    return cudaSuccess;
}

/* Whether all that the members did comes before the origin's end. */
bool all_joined(const Capture &c)
{
    std::vector<char> seen(c.graph->nodes.size());
    std::vector<size_t> open = c.origin->capture_after;
    while (!open.empty()) {
        size_t n = open.back();
        open.pop_back();
        if (seen[n]) continue;
        seen[n] = 1;
        const std::vector<size_t> &after = c.graph->nodes[n].after;
        open.insert(open.end(), after.begin(), after.end());
    }
    return std::all_of(seen.begin(), seen.end(), [](char s) { return s; });
}

} // namespace

void capture_work(Stream *s, Work work)
{
    Graph &g = *s->capture->graph;
    work.after.clear();
    g.nodes.push_back({std::move(work), s->capture_after});
    s->capture_after = {g.nodes.size() - 1};
}

cudaError_t spoil(Capture *c, cudaError_t e)
{
    c->invalid = true;
    return failed(e);
}

bool any_capture() { return !captures().empty(); }

cudaError_t unsafe_in_capture()
{
    for (Capture *c : captures())
        if (c->mode != cudaStreamCaptureModeRelaxed &&
            thread_mode() != cudaStreamCaptureModeRelaxed)
            return spoil(c, cudaErrorStreamCaptureUnsupported);
    return cudaSuccess;
}

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s) return failed(cudaErrorInvalidResourceHandle);
    if (s == find_stream(nullptr)) return failed(cudaErrorStreamCaptureUnsupported);
    if (s->capture) return failed(cudaErrorIllegalState);
    Capture *c = new Capture{std::make_unique<Graph>(), mode, s, {s}, false};
    captures().insert(c);
    s->capture = c;
    s->capture_after.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *out)
{
    Stream *s = find_stream(handle);
    if (!s || !out) return failed(cudaErrorInvalidResourceHandle);
    *out = nullptr;
    if (!s->capture) return failed(cudaErrorIllegalState);
    Capture *c = s->capture;
    if (c->origin != s) return spoil(c, cudaErrorStreamCaptureUnmatched);
    cudaError_t e = c->invalid ? cudaErrorStreamCaptureInvalidated
                               : all_joined(*c) ? cudaSuccess : cudaErrorStreamCaptureUnjoined;
    for (Stream *member : c->members) member->capture = nullptr;
    forget_events(c);
    captures().erase(c);
    if (e == cudaSuccess) {
        graphs().insert(c->graph.get());
        *out = (cudaGraph_t)c->graph.release();
    }
    delete c;
    return failed(e);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s || !status) return failed(cudaErrorInvalidResourceHandle);
    *status = !s->capture ? cudaStreamCaptureStatusNone
                          : s->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                                : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    ENTER();
    if (!mode) return failed(cudaErrorInvalidValue);
    std::swap(*mode, thread_mode());
    return cudaSuccess;
}

cudaError_t cudaGraphCreate(cudaGraph_t *out, unsigned flags)
{
    ENTER();
    if (!out || flags) return failed(cudaErrorInvalidValue);
    Graph *g = new Graph;
    graphs().insert(g);
    *out = (cudaGraph_t)g;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long)
{
    ENTER();
    Graph *g = (Graph *)graph;
    if (!out || !graphs().count(g)) return failed(cudaErrorInvalidValue);
    Exec *x = new Exec{std::make_shared<Graph>(*g)};
    execs().insert(x);
    *out = (cudaGraphExec_t)x;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(out, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t)
{
    ENTER();
    return execs().count((Exec *)exec) ? cudaSuccess : failed(cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle)
{
    ENTER();
    Exec *x = (Exec *)exec;
    Stream *s = find_stream(handle);
    if (!s || !execs().count(x)) return failed(cudaErrorInvalidValue);
    std::shared_ptr<Graph> g = x->graph; /* outlives the exec */
    return issue(s, {"a graph", [g] { return replay(*g); }, {}});
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    ENTER();
    Graph *g = (Graph *)graph;
    if (!graphs().count(g) || !count) return failed(cudaErrorInvalidValue);
    size_t all = g->nodes.size();
    if (nodes)
        for (size_t n = 0; n < *count; n++)
            nodes[n] = n < all ? (cudaGraphNode_t)&g->nodes[n] : nullptr;
    *count = nodes ? std::min(*count, all) : all;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    Exec *x = (Exec *)exec;
    if (!execs().erase(x)) return failed(cudaErrorInvalidValue);
    delete x;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    Graph *g = (Graph *)graph;
    if (!graphs().erase(g)) return failed(cudaErrorInvalidValue);
    delete g;
    return cudaSuccess;
}

} // extern "C"
