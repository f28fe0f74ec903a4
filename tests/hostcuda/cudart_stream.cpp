/* cudart_stream.cpp - streams and events: when queued work runs. */
#include "cudart.h"
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>

namespace hostcuda {

namespace {

/* The host read these bytes while the works up to `pending` had not run. */
struct HostRead {
    const char *p;
    std::vector<char> bytes;
    std::vector<Mark> pending;
};

struct Streams {
    Stream legacy, per_thread;
    std::vector<std::unique_ptr<Stream>> made; /* kept for ever: marks point to them */
    std::set<Stream *> live;
    std::vector<HostRead> reads;
    int mode = LAZY;
    std::minstd_rand random{1};

    Streams()
    {
        const char *text = getenv("HOSTCUDA_STREAMS");
        if (text) mode = atoi(text);
        live = {&legacy, &per_thread};
    }
};
Streams &streams()
{
    static Streams s;
    return s;
}

void check_reads(const Stream *s, const Work &work)
{
    std::vector<HostRead> &reads = streams().reads;
    for (HostRead &read : reads) {
        for (const Mark &m : read.pending) {
            bool earlier = m.stream == s && s->done < m.count;
            if (!earlier || !memcmp(read.p, read.bytes.data(), read.bytes.size())) continue;
            std::string text = "the host read device memory before " + work.name
                               + ", issued earlier, had written it: synchronise first";
            failed_for_good(launch_refused(cudaErrorLaunchFailure, text.c_str()));
            read.bytes.assign(read.p, read.p + read.bytes.size());
        }
    }
    auto over = [](const HostRead &r) {
        return std::all_of(r.pending.begin(), r.pending.end(),
                           [](const Mark &m) { return m.stream->done >= m.count; });
    };
    reads.erase(std::remove_if(reads.begin(), reads.end(), over), reads.end());
}

struct {
    double (*ms)(const char *work);
    double now = 0; /* ms */
} scripted;

std::chrono::steady_clock::time_point now()
{
    using namespace std::chrono;
    if (!scripted.ms) return steady_clock::now();
    return steady_clock::time_point(duration_cast<steady_clock::duration>(
        duration<double, std::milli>(scripted.now)));
}

void run_first(Stream *s)
{
    Work work = std::move(s->queue.front());
    s->queue.pop_front();
    for (const Mark &m : work.after) run_up_to(m);
    cudaError_t e = work.run ? work.run() : cudaSuccess;
    if (e != cudaSuccess) failed_for_good(e);
    if (scripted.ms) scripted.now += scripted.ms(work.name.c_str());
    if (!streams().reads.empty()) check_reads(s, work);
    s->done++;
}

void run_some(Stream *s)
{
    Streams &all = streams();
    const size_t longest = 512;
    if (all.mode == EAGER || s->queue.size() > longest) run_stream(s);
    if (all.mode != RANDOM) return;
    for (Stream *other : all.live)
        while (!other->queue.empty() && all.random() % 3 == 0) run_first(other);
}

} // namespace

int stream_mode() { return streams().mode; }

Stream *find_stream(cudaStream_t handle)
{
    if (!handle || handle == cudaStreamLegacy) return &streams().legacy;
    if (handle == cudaStreamPerThread) return &streams().per_thread;
    Stream *s = (Stream *)handle;
    return streams().live.count(s) ? s : nullptr;
}

void run_up_to(const Mark &m)
{
    while (m.stream->done < m.count && !m.stream->queue.empty()) run_first(m.stream);
}

void run_stream(Stream *s) { run_up_to({s, s->issued}); }

void run_everything()
{
    for (Stream *s : streams().live) run_stream(s);
}

void run_legacy()
{
    for (Stream *s : streams().live)
        if (s->blocking) run_stream(s);
}

/* The legacy stream's work follows that of all blocking streams, and theirs follows its. */
cudaError_t issue(Stream *s, Work work)
{
    if (s->capture) {
        capture_work(s, std::move(work));
        return s->capture->invalid ? failed(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
    }
    Streams &all = streams();
    if (s == &all.legacy) {
        for (Stream *other : all.live) {
            if (other == s || !other->blocking) continue;
            if (other->capture) return spoil(other->capture, cudaErrorStreamCaptureImplicit);
            work.after.push_back({other, other->issued});
        }
    } else if (s->blocking) {
        work.after.push_back({&all.legacy, all.legacy.issued});
    }
    s->queue.push_back(std::move(work));
    s->issued++;
    run_some(s);
    return cudaSuccess;
}

void note_host_read(const void *p, size_t n)
{
    HostRead read{(const char *)p, {}, {}};
    for (Stream *s : streams().live)
        if (!s->queue.empty()) read.pending.push_back({s, s->issued});
    if (read.pending.empty()) return;
    read.bytes.assign(read.p, read.p + n);
    streams().reads.push_back(std::move(read));
}

namespace {

struct Event {
    Mark mark{nullptr, 0};
    bool recorded = false;
    Capture *capture = nullptr; /* it was last recorded there, after these nodes */
    std::vector<size_t> nodes;
    std::shared_ptr<std::chrono::steady_clock::time_point> time;
    bool done() const { return !mark.stream || mark.stream->done >= mark.count; }
};

std::set<Event *> &events()
{
    static std::set<Event *> live;
    return live;
}
Event *find_event(cudaEvent_t handle)
{
    Event *e = (Event *)handle;
    return events().count(e) ? e : nullptr;
}

cudaError_t new_stream(cudaStream_t *out, unsigned flags, int priority)
{
    if (!out || flags > 1) return failed(cudaErrorInvalidValue);
    if (!device_count()) return failed(cudaErrorNoDevice);
    auto s = std::make_unique<Stream>();
    s->blocking = flags != cudaStreamNonBlocking;
    s->priority = priority;
    *out = (cudaStream_t)s.get();
    streams().live.insert(s.get());
    streams().made.push_back(std::move(s));
    return cudaSuccess;
}

} // namespace

void forget_events(const Capture *c)
{
    for (Event *e : events()) {
        if (e->capture != c) continue;
        e->capture = nullptr;
        e->recorded = false;
    }
}

} // namespace hostcuda

using namespace hostcuda;

extern "C" {

void hostcuda_set_streams(int mode) { streams().mode = mode; }
void hostcuda_set_clock(double (*ms)(const char *work)) { scripted.ms = ms; }

size_t hostcuda_pending(void)
{
    size_t n = 0;
    for (Stream *s : streams().live) n += s->queue.size();
    return n;
}

cudaError_t cudaStreamCreate(cudaStream_t *out)
{
    ENTER();
    return new_stream(out, cudaStreamDefault, 0);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    ENTER();
    return new_stream(out, flags, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    ENTER();
    return new_stream(out, flags, priority);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER();
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    Stream *s = find_stream(handle);
    if (!s || !handle) return failed(cudaErrorInvalidResourceHandle);
    if (s->capture) spoil(s->capture, cudaErrorStreamCaptureUnsupported);
    run_stream(s); /* it may finish at any time */
    streams().live.erase(s);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s) return failed(cudaErrorInvalidResourceHandle);
    if (s->capture) return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
    if (!handle) run_legacy();
    run_stream(s);
    return entering("");
}

/* Each question lets one more work run, so that polling ends. */
cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s) return failed(cudaErrorInvalidResourceHandle);
    if (s->capture) return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
    if (s->queue.empty()) return entering("");
    run_first(s);
    return cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void)
{
    ENTER();
    if (any_capture())
        if (cudaError_t e = unsafe_in_capture()) return e;
    run_everything();
    return entering("");
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned)
{
    ENTER();
    Stream *s = find_stream(handle);
    Event *e = find_event(event);
    if (!s || !e) return failed(cudaErrorInvalidResourceHandle);
    if (e->capture) { /* the stream joins the capture */
        if (s->capture && s->capture != e->capture)
            return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
        if (!s->capture) s->capture_after.clear();
        s->capture = e->capture;
        e->capture->members.insert(s);
        s->capture_after.insert(s->capture_after.end(), e->nodes.begin(), e->nodes.end());
        return cudaSuccess;
    }
    if (s->capture) return spoil(s->capture, cudaErrorStreamCaptureUnsupported);
    if (!e->recorded || e->done()) return cudaSuccess;
    return issue(s, {"cudaStreamWaitEvent", nullptr, {e->mark}});
}

/* flags: bit 0 blocking, 1 no timing, 2 between processes */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    ENTER();
    if (!out || flags > 7) return failed(cudaErrorInvalidValue);
    Event *e = new Event;
    if (!(flags & cudaEventDisableTiming))
        e->time = std::make_shared<std::chrono::steady_clock::time_point>();
    events().insert(e);
    *out = (cudaEvent_t)e;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    Event *e = find_event(event);
    if (!e) return failed(cudaErrorInvalidResourceHandle);
    events().erase(e);
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    ENTER();
    Stream *s = find_stream(handle);
    Event *e = find_event(event);
    if (!s || !e) return failed(cudaErrorInvalidResourceHandle);
    e->recorded = true;
    e->capture = s->capture;
    if (s->capture) {
        e->nodes = s->capture_after;
        e->mark = {nullptr, 0};
        return cudaSuccess;
    }
    auto time = e->time;
    Work work{"cudaEventRecord", nullptr, {}};
    work.run = [time] {
        if (time) *time = now();
        return cudaSuccess;
    };
    e->mark = {s, s->issued + 1};
    return issue(s, std::move(work));
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned)
{
    return cudaEventRecord(event, handle);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    ENTER();
    Event *e = find_event(event);
    if (!e) return failed(cudaErrorInvalidResourceHandle);
    if (e->capture) return spoil(e->capture, cudaErrorCapturedEvent);
    if (cudaError_t unsafe = unsafe_in_capture()) return unsafe;
    if (e->mark.stream) run_up_to(e->mark);
    return entering("");
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    ENTER();
    Event *e = find_event(event);
    if (!e) return failed(cudaErrorInvalidResourceHandle);
    if (e->capture) return spoil(e->capture, cudaErrorCapturedEvent);
    if (cudaError_t unsafe = unsafe_in_capture()) return unsafe;
    if (e->done()) return entering("");
    run_first(e->mark.stream);
    return cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    ENTER();
    Event *a = find_event(start), *b = find_event(end);
    if (!ms || !a || !b || !a->time || !b->time || !a->recorded || !b->recorded)
        return failed(cudaErrorInvalidResourceHandle);
    if (!a->done() || !b->done()) return failed(cudaErrorNotReady);
    *ms = std::chrono::duration<float, std::milli>(*b->time - *a->time).count();
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void *data)
{
    ENTER();
    Stream *s = find_stream(handle);
    if (!s || !function) return failed(cudaErrorInvalidValue);
    return issue(s, {"a host function",
                     [=] {
                         function(data);
                         return cudaSuccess;
                     },
                     {}});
}

} // extern "C"
