// emu_rt.cpp - scheduler, warp collectives, async copies, tensor-core ops and a cudart subset for HOST_EMU builds.
#include "emu.h"
#include "emu_hooks.h"
#include <algorithm>
#include <cstdarg>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <vector>
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(EMU_ASAN)
#define EMU_ASAN 1
#endif
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define EMU_ASAN 0
#define ASAN_POISON_MEMORY_REGION(a, n) (void)0
#define ASAN_UNPOISON_MEMORY_REGION(a, n) (void)0
#endif
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
namespace emu {
int quiet = 0;
Config cfg;
const Hooks* hooks = nullptr;
unsigned long long n_switches, n_blocks, n_threads, n_mma;
static const size_t ARENA = 256 * 1024, DYN_MAX = 232448, STATIC_MAX = 48 * 1024;
static const uint32_t WIN = 0x400; // shared-window address of the arena's first byte
static const size_t STACK = 256 * 1024;

enum class St : uint8_t { Ready, Bar, Warp, MBar, Done };
struct Copy { char* s; const char* g; int bytes, src; const char* f; int l; bool done; };
struct Group { unsigned mask = 0, arrived = 0; int op = 0; const char* f = nullptr; int l = 0; void* arg[32]; };
struct Warp;
struct Thread {
  void* sp; char* stk; uint3 tid; int lin, lane, rank; Warp* w; St st; const char *f, *what; int l; void* fake;
  uint64_t* mb; uint32_t mbpar; std::vector<Copy> cp; std::vector<std::vector<Copy>> cpg;
  std::vector<std::function<void()>> bulk; std::vector<std::vector<std::function<void()>>> bulkg; bool wg_fenced;
};
struct Warp { int id; unsigned exist, exited; Group g[8]; std::vector<std::function<void()>> wg; std::vector<std::vector<std::function<void()>>> wgg; };
struct Barrier { int n = 0, need = 0, acc[3]; const char* f = nullptr; int l = 0; std::vector<int> who; };
struct Slot { const void* key; char* p; size_t n; };

static std::vector<Thread> T; static std::vector<Warp> W; static Barrier B[16]; static int red_out[3];
static std::vector<Slot> slots; static char* arena; static size_t dyn_n, stat_off;
static std::vector<char*> stacks; static uint64_t readybits[16]; static std::vector<int> by_rank;
static Thread* cur; static void* main_sp; static int ndone, nthr; static bool failed; static std::string err, sticky;
static std::vector<std::function<void()>> engine; // TMA-like operations in flight
static void (*g_body)(void*); static void* g_ctx; static uint64_t rng = 88172645463325252ull;
static std::map<const void*, int> fn_smem; static std::map<uintptr_t, size_t> allocs; static cudaError_t g_err = cudaSuccess;
static inline uint64_t rnd() { rng ^= rng << 13; rng ^= rng >> 7; rng ^= rng << 17; return rng; }
int cur_tid() { return cur ? cur->lin : -1; }
const char* last_error() { return sticky.c_str(); }
int lane_id() { return cur->lane; }

// ---------------- context switch ----------------
#if defined(__x86_64__)
extern "C" void emu_switch(void** save, void* to);
asm(".text\n.globl emu_switch\n.type emu_switch,@function\nemu_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size emu_switch,.-emu_switch\n");
#else
#error "port emu_switch (20 lines) or use ucontext"
#endif
[[maybe_unused]] static const void* main_bot; [[maybe_unused]] static size_t main_size; static void* main_fake;
static void jump(void** save, Thread* to, void** fake_save) {
  ++n_switches;
#if EMU_ASAN
  if (to) __sanitizer_start_switch_fiber(fake_save, to->stk, STACK); else __sanitizer_start_switch_fiber(fake_save, main_bot, main_size);
#endif
  cur = to; if (to) threadIdx = to->tid;
  emu_switch(save, to ? to->sp : main_sp);
#if EMU_ASAN
  __sanitizer_finish_switch_fiber(cur ? cur->fake : main_fake, nullptr, nullptr);
#endif
}
static inline void set_ready(Thread& t) { t.st = St::Ready; readybits[t.rank >> 6] |= 1ull << (t.rank & 63); }
static inline void clr_ready(Thread& t) { readybits[t.rank >> 6] &= ~(1ull << (t.rank & 63)); }
static Thread* pick() {
  int words = (nthr + 63) / 64;
  if (cfg.async == 2 && !engine.empty() && rnd() % 8 == 0) { size_t i = rnd() % engine.size(); auto f = engine[i]; engine.erase(engine.begin() + i); f(); }
  for (;;) {
    int start = cfg.sched == 2 ? (int)(rnd() % (unsigned)nthr) : 0;
    for (int k = 0; k <= words; k++) {
      int wi = ((start >> 6) + k) % words; uint64_t b = readybits[wi];
      if (k == 0) b &= ~0ull << (start & 63);
      if (b) return &T[by_rank[wi * 64 + __builtin_ctzll(b)]];
    }
    if (engine.empty()) return nullptr;
    size_t i = cfg.async == 0 ? 0 : rnd() % engine.size(); // TMA completes in any order
    auto f = engine[i]; engine.erase(engine.begin() + i); f();
  }
}
void preempt();
static void yield() { // current thread is blocked, ready-but-giving-way, or done
  Thread* me = cur; Thread* n = pick();
  if (n == me) return;
  jump(&me->sp, n, me->st == St::Done ? nullptr : &me->fake);
}
[[noreturn]] void stop_block() { failed = true; Thread* me = cur; me->st = St::Done; jump(&me->sp, nullptr, nullptr); abort(); }
static std::string where(const char* f, int l) { const char* b = strrchr(f ? f : "?", '/'); return std::string(b ? b + 1 : f ? f : "?") + ":" + std::to_string(l); }
static void set_err(const std::string& s) { if (err.empty()) err = s; if (getenv("EMU_ABORT")) { fprintf(stderr, "%s\n", s.c_str()); abort(); } }
static std::string who(const Thread& t) {
  char b[128]; snprintf(b, sizeof b, "block (%u,%u,%u) thread (%u,%u,%u) warp %d lane %d", blockIdx.x, blockIdx.y, blockIdx.z, t.tid.x, t.tid.y, t.tid.z, t.w->id, t.lane); return b;
}
[[noreturn]] void trap(const char* what, const char* f, int l) { set_err(where(f, l) + ": " + what + " [" + who(*cur) + "]"); stop_block(); }
bool report(const char* fmt, ...) { char b[512]; va_list a; va_start(a, fmt); vsnprintf(b, sizeof b, fmt, a); va_end(a); set_err(b); return true; }
static void fail(const char* f, int l, const char* fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
static void fail(const char* f, int l, const char* fmt, ...) { char b[400]; va_list a; va_start(a, fmt); vsnprintf(b, sizeof b, fmt, a); va_end(a); trap(b, f, l); }
static unsigned long long spins; // polls since a thread last blocked
static void block_on(St s, const char* what, const char* f, int l) { spins = 0; cur->st = s; cur->what = what; cur->f = f; cur->l = l; clr_ready(*cur); yield(); }
void yield_hint() { // a polling loop: give way to a random other thread and let in-flight copies progress
  if (++spins > 20000000) trap("livelock: 20M polls without progress", "spin", 0);
  if (!engine.empty() && rnd() % 4 == 0) { size_t i = rnd() % engine.size(); auto f = engine[i]; engine.erase(engine.begin() + i); f(); }
  preempt();
}
void preempt() { // give way while still runnable
  int s = cfg.sched; cfg.sched = 2; Thread* me = cur; Thread* n = pick(); cfg.sched = s;
  if (n && n != me) jump(&me->sp, n, &me->fake);
}

// ---------------- block barriers ----------------
static void bar_release(Barrier& b) {
  if (hooks) hooks->join(b.who.data(), (int)b.who.size());
  if (&b == B) for (int i = 0; i < 3; i++) red_out[i] = b.acc[i];
  for (int t : b.who) if (T[t].st == St::Bar) set_ready(T[t]);
  b.n = 0; b.who.clear(); b.f = nullptr;
}
static int bar_need(int count) { return count ? count : nthr - ndone; }
static void bar_enter(int id, int count, int pred, const char* f, int l) {
  Barrier& b = B[id];
  if (b.n && b.need != count) fail(f, l, "barrier %d: thread count differs from the arrival at %s", id, where(b.f, b.l).c_str());
  if (b.n && cfg.strict && id == 0 && (b.l != l || strcmp(b.f, f) != 0)) fail(f, l, "divergent __syncthreads: others wait at %s", where(b.f, b.l).c_str());
  if (!b.n) { b.need = count; b.f = f; b.l = l; b.acc[0] = 0; b.acc[1] = 1; b.acc[2] = 0; }
  b.acc[0] += pred != 0; b.acc[1] &= pred != 0; b.acc[2] |= pred != 0;
  b.n++; b.who.push_back(cur->lin);
}
void bar_sync(int id, int count, bool, const char* f, int l) {
  bar_enter(id, count, 0, f, l);
  if (B[id].n == bar_need(count)) bar_release(B[id]); else block_on(St::Bar, id ? "bar.sync" : "__syncthreads", f, l);
}
int bar_reduce(int p, int kind, const char* f, int l) {
  bar_enter(0, 0, p, f, l);
  if (B[0].n == bar_need(0)) bar_release(B[0]); else block_on(St::Bar, "__syncthreads_*", f, l);
  return red_out[kind]; // read before anyone can complete the next barrier
}
void bar_arrive(int id, int count, const char* f, int l) { bar_enter(id, count, 0, f, l); if (B[id].n == count) bar_release(B[id]); }

// ---------------- warp collectives ----------------
static const char* opname(int o) { static const char* n[] = {"?", "__syncwarp", "__shfl_sync", "vote", "__match_any_sync", "__reduce_sync", "ldmatrix", "stmatrix", "mma.sync", "wgmma", "elect.sync", "movmatrix"}; return n[o]; }
template <class F> static void collective(unsigned mask, int op, bool aligned, void* arg, const char* f, int l, F&& fn) {
  Warp& w = *cur->w; unsigned bit = 1u << cur->lane; Group* g = nullptr;
  if (!(mask & bit)) fail(f, l, "%s: calling lane %d is not in its mask %08x", opname(op), cur->lane, mask);
  if (mask & ~w.exist) { if (w.exist == (mask & w.exist) && mask == 0xffffffffu) mask = w.exist; else fail(f, l, "%s: mask %08x names lanes that do not exist", opname(op), mask); }
  if (mask & w.exited) fail(f, l, "%s: mask %08x names lanes that have exited (%08x)", opname(op), mask, w.exited);
  for (auto& x : w.g) if (x.mask && ((x.mask & bit) || (mask & x.arrived))) {
    if (x.mask != mask || x.op != op) fail(f, l, "divergent warp collective: %s mask %08x here, %s mask %08x at %s", opname(op), mask, opname(x.op), x.mask, where(x.f, x.l).c_str());
    if (aligned && cfg.strict && (x.l != l || strcmp(x.f, f))) fail(f, l, "divergent %s (.aligned): other lanes are at %s", opname(op), where(x.f, x.l).c_str());
    g = &x; break;
  }
  if (!g) { for (auto& x : w.g) if (!x.mask) { g = &x; break; } if (!g) fail(f, l, "too many warp collectives in flight"); g->mask = mask; g->arrived = 0; g->op = op; g->f = f; g->l = l; }
  g->arg[cur->lane] = arg; g->arrived |= bit;
  if (g->arrived == mask) {
    fn(*g, w);
    unsigned m = mask & ~bit; g->mask = 0;
    while (m) { int i = __builtin_ctz(m); m &= m - 1; set_ready(T[w.id * 32 + i]); }
  } else block_on(St::Warp, opname(op), f, l);
}
#define LANES(i, m) for (unsigned m_ = (m), i = 0; m_ && (i = __builtin_ctz(m_), true); m_ &= m_ - 1)
void syncwarp(unsigned mask, const char* f, int l) {
  collective(mask, OP_SYNCWARP, false, nullptr, f, l, [](Group& g, Warp& w) {
    if (hooks) { int t[32], n = 0; LANES(i, g.mask) t[n++] = w.id * 32 + i; hooks->join(t, n); } });
}
struct ShflArg { uint64_t in, out; int kind, arg, width; };
uint64_t shfl(int kind, unsigned mask, uint64_t v, int arg, int width, const char* f, int l) {
  ShflArg a{v, 0, kind, arg, width}; const char* bad = nullptr; (void)bad;
  collective(mask, OP_SHFL, false, &a, f, l, [&](Group& g, Warp&) {
    LANES(i, g.mask) {
      auto* x = (ShflArg*)g.arg[i]; int seg = i & ~(x->width - 1), last = seg + x->width - 1, j = i; bool ok = true;
      if (x->kind == 0) j = seg + (x->arg & (x->width - 1));
      else if (x->kind == 1) { j = (int)i - x->arg; ok = j >= seg; }
      else if (x->kind == 2) { j = (int)i + x->arg; ok = j <= last; }
      else { j = (int)i ^ x->arg; ok = j <= last; }
      if (!ok) j = i;
      if (!(g.mask >> j & 1)) fail(f, l, "__shfl_sync: lane %u reads lane %d, which is not in mask %08x", i, j, g.mask);
      x->out = ((ShflArg*)g.arg[j])->in;
    }
  });
  return a.out;
}
struct V2 { uint64_t in; unsigned out; };
unsigned vote(int, unsigned mask, int pred, const char* f, int l) {
  V2 a{(uint64_t)(pred != 0), 0};
  collective(mask, OP_VOTE, false, &a, f, l, [](Group& g, Warp&) { unsigned r = 0; LANES(i, g.mask) r |= (unsigned)((V2*)g.arg[i])->in << i; LANES(k, g.mask) ((V2*)g.arg[k])->out = r; });
  return a.out;
}
unsigned match_any(unsigned mask, uint64_t v, const char* f, int l) {
  V2 a{v, 0};
  collective(mask, OP_MATCH, false, &a, f, l, [](Group& g, Warp&) { LANES(i, g.mask) { unsigned r = 0; for (unsigned k = 0; k < 32; k++) if (g.mask >> k & 1 && ((V2*)g.arg[k])->in == ((V2*)g.arg[i])->in) r |= 1u << k; ((V2*)g.arg[i])->out = r; } });
  return a.out;
}
uint32_t reduce(int kind, unsigned mask, uint32_t v, const char* f, int l) {
  V2 a{v, 0};
  collective(mask, OP_REDUCE, false, &a, f, l, [=](Group& g, Warp&) { uint32_t r = 0; LANES(i, g.mask) { uint32_t x = (uint32_t)((V2*)g.arg[i])->in; r = kind == 0 ? r + x : kind == 1 ? std::max(r, x) : r | x; } LANES(k, g.mask) ((V2*)g.arg[k])->out = r; });
  return a.out;
}
bool elect_one(unsigned mask, const char* f, int l) { V2 a{0, 0}; collective(mask, OP_ELECT, true, &a, f, l, [](Group& g, Warp&) { ((V2*)g.arg[__builtin_ctz(g.mask)])->out = 1; }); return a.out; }
unsigned activemask() { return cur->w->exist & ~cur->w->exited; }
void threadfence() { if (hooks) hooks->threadfence(cur->lin); }

// ---------------- shared memory ----------------
void* dyn_smem(size_t) { return arena; }
void* static_smem(const void* key, size_t n, size_t align) {
  for (auto& s : slots) if (s.key == key) return s.p;
  size_t o = (stat_off + align - 1) / align * align;
  if (o + n - (dyn_n + 1024) > STATIC_MAX + 16384 || o + n > ARENA) trap("static shared memory over 48 KiB, or static + dynamic over the SM's limit", "launch", 0);
  ASAN_UNPOISON_MEMORY_REGION(arena + o, n);
  slots.push_back({key, arena + o, n}); stat_off = o + n + 128; // redzone
  return arena + o;
}
static bool in_arena(const void* p) { return (char*)p >= arena && (char*)p < arena + ARENA; }
static bool in_smem(const void* p, size_t n) {
  char* c = (char*)p; if (c >= arena && c + n <= arena + dyn_n) return true;
  for (auto& s : slots) if (c >= s.p && c + n <= s.p + s.n) return true;
  return false;
}
uint32_t smem_addr(const void* p, const char* f, int l) { if (!in_arena(p)) fail(f, l, "address %p is not in shared memory", p); return (uint32_t)((char*)p - arena) + WIN; }
bool smem_ok(const void* p, size_t n) { return in_smem(p, n); }
static void need_smem(const void* p, size_t n, size_t align, const char* op, const char* f, int l) {
  if (!in_smem(p, n)) fail(f, l, "%s: shared address out of bounds (offset %ld, %zu bytes, dynamic size %zu)", op, (long)((char*)p - arena), n, dyn_n);
  if ((uintptr_t)p % align) fail(f, l, "%s: shared address not %zu-byte aligned (offset %ld)", op, align, (long)((char*)p - arena));
}
static void need_gmem(const void* p, size_t n, const char* op, const char* f, int l) {
  if (allocs.empty() || !n) return;
  auto it = allocs.upper_bound((uintptr_t)p);
  if (it == allocs.begin() || (--it, (uintptr_t)p + n > it->first + it->second)) fail(f, l, "%s: global address out of bounds (%zu bytes)", op, n);
}
static inline void acc(int tid, const void* p, size_t n, int kind, const char* f, int l) { if (hooks) hooks->access(tid, p, n, kind, f, l); }
void note(const void* p, size_t n, int kind, const char* f, int l) { if (hooks && cur) hooks->access(cur->lin, p, n, kind, f, l); }

// ---------------- ldmatrix, mma ----------------
struct MatArg { uint32_t* r; const char* row; };
void ldmatrix(uint32_t* r, int num, bool trans, const void* row, const char* f, int l) {
  MatArg a{r, (const char*)row};
  collective(0xffffffffu, OP_LDMATRIX, true, &a, f, l, [&](Group& g, Warp& w) {
    Quiet q; 
    for (int m = 0; m < num; m++) {
      const char* rows[8];
      for (int i = 0; i < 8; i++) { rows[i] = ((MatArg*)g.arg[m * 8 + i])->row; need_smem(rows[i], 16, 16, "ldmatrix", f, l); acc(w.id * 32 + m * 8 + i, rows[i], 16, 0, f, l); }
      if (hooks) hooks->warp_access(w.id, (const void* const*)rows, 8, 16, false, f, l);
      for (int i = 0; i < 32; i++) {
        uint32_t v; 
        if (!trans) memcpy(&v, rows[i / 4] + (i % 4) * 4, 4);
        else { uint16_t lo, hi; memcpy(&lo, rows[(i % 4) * 2] + (i / 4) * 2, 2); memcpy(&hi, rows[(i % 4) * 2 + 1] + (i / 4) * 2, 2); v = lo | (uint32_t)hi << 16; }
        ((MatArg*)g.arg[i])->r[m] = v;
      }
    } });
}
void stmatrix(const uint32_t* r, int num, bool trans, void* row, const char* f, int l) {
  MatArg a{(uint32_t*)r, (const char*)row};
  collective(0xffffffffu, OP_STMATRIX, true, &a, f, l, [&](Group& g, Warp& w) {
    Quiet q;
    for (int m = 0; m < num; m++) {
      char* rows[8];
      for (int i = 0; i < 8; i++) { rows[i] = (char*)((MatArg*)g.arg[m * 8 + i])->row; need_smem(rows[i], 16, 16, "stmatrix", f, l); acc(w.id * 32 + m * 8 + i, rows[i], 16, 1, f, l); }
      if (hooks) hooks->warp_access(w.id, (const void* const*)rows, 8, 16, true, f, l);
      for (int i = 0; i < 32; i++) { uint32_t v = ((MatArg*)g.arg[i])->r[m]; if (!trans) memcpy(rows[i / 4] + (i % 4) * 4, &v, 4); else { uint16_t lo = v, hi = v >> 16; memcpy(rows[(i % 4) * 2] + (i / 4) * 2, &lo, 2); memcpy(rows[(i % 4) * 2 + 1] + (i / 4) * 2, &hi, 2); } }
    } });
}
static float h2f_tab[65536]; static bool h2f_ok = false;
static inline float cvt(uint16_t u, bool bf16) { if (bf16) { uint32_t x = (uint32_t)u << 16; float f; memcpy(&f, &x, 4); return f; } return h2f_tab[u]; }
static void init_tab() { if (h2f_ok) return; for (int i = 0; i < 65536; i++) { __half_raw r; r.x = (unsigned short)i; h2f_tab[i] = __half2float(__half(r)); } h2f_ok = true; }
// C[M][8N] += A[M][16] B[16][N]; plain loops the compiler vectorises
#if defined(__clang__)
#define EMU_CLONES
#else
#define EMU_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#endif
template <int M, int N, int K> EMU_CLONES static void tile_mma(float (*__restrict__ c)[N], const float (*__restrict__ a)[K], const float (*__restrict__ b)[N]) {
  for (int m = 0; m < M; m++) for (int k = 0; k < K; k++) { float x = a[m][k]; for (int n = 0; n < N; n++) c[m][n] += x * b[k][n]; }
}
struct MmaArg { float* d; const uint32_t *a, *b; const float* c; };
void mma16816(float* d, const uint32_t* a, const uint32_t* b, const float* c, bool bf16, const char* f, int l) {
  MmaArg x{d, a, b, c};
  collective(0xffffffffu, OP_MMA, true, &x, f, l, [&](Group& g, Warp&) {
    ++n_mma; alignas(32) float A[16][16], Bm[16][8], C[16][8];
    for (int i = 0; i < 32; i++) {
      auto* p = (MmaArg*)g.arg[i]; int gr = i / 4, tg = i % 4;
      for (int r = 0; r < 4; r++) for (int h = 0; h < 2; h++) A[gr + 8 * (r & 1)][tg * 2 + h + 8 * (r >> 1)] = cvt((uint16_t)(p->a[r] >> (16 * h)), bf16);
      for (int r = 0; r < 2; r++) for (int h = 0; h < 2; h++) Bm[tg * 2 + h + 8 * r][gr] = cvt((uint16_t)(p->b[r] >> (16 * h)), bf16);
      for (int r = 0; r < 4; r++) C[gr + 8 * (r >> 1)][tg * 2 + (r & 1)] = p->c[r];
    }
    tile_mma<16, 8, 16>(C, A, Bm);
    for (int i = 0; i < 32; i++) { auto* p = (MmaArg*)g.arg[i]; for (int r = 0; r < 4; r++) p->d[r] = C[i / 4 + 8 * (r >> 1)][(i % 4) * 2 + (r & 1)]; } });
}
void mma1688_tf32(float* d, const uint32_t* a, const uint32_t* b, const float* c, const char* f, int l) {
  MmaArg x{d, a, b, c};
  collective(0xffffffffu, OP_MMA, true, &x, f, l, [&](Group& g, Warp&) {
    ++n_mma; alignas(32) float A[16][8], Bm[8][8], C[16][8]; auto tf = [](uint32_t u) { u &= 0xffffe000u; float r; memcpy(&r, &u, 4); return r; };
    for (int i = 0; i < 32; i++) {
      auto* p = (MmaArg*)g.arg[i]; int gr = i / 4, tg = i % 4;
      for (int r = 0; r < 4; r++) A[gr + 8 * (r & 1)][tg + 4 * (r >> 1)] = tf(p->a[r]);
      for (int r = 0; r < 2; r++) Bm[tg + 4 * r][gr] = tf(p->b[r]);
      for (int r = 0; r < 4; r++) C[gr + 8 * (r >> 1)][tg * 2 + (r & 1)] = p->c[r];
    }
    tile_mma<16, 8, 8>(C, A, Bm);
    for (int i = 0; i < 32; i++) { auto* p = (MmaArg*)g.arg[i]; for (int r = 0; r < 4; r++) p->d[r] = C[i / 4 + 8 * (r >> 1)][(i % 4) * 2 + (r & 1)]; } });
}

// ---------------- cp.async ----------------
static bool lazy() { return cfg.async == 1 || (cfg.async == 2 && (rnd() & 1)); }
static void do_copy(const Copy& c) { Quiet q; memcpy(c.s, c.g, c.src); memset(c.s + c.src, 0, c.bytes - c.src); }
static void finish_copy(int tid, const Copy& c) { if (!c.done) do_copy(c); if (hooks) { hooks->pend(c.s, c.bytes, false); acc(tid, c.s, c.bytes, 1, c.f, c.l); } }
void cp_async(void* s, const void* g, int bytes, int src, const char* f, int l) {
  need_smem(s, bytes, bytes, "cp.async", f, l); if (src < 0 || src > bytes) fail(f, l, "cp.async: src-size %d", src);
  if (src && (uintptr_t)g % bytes) fail(f, l, "cp.async: global address not %d-byte aligned", bytes);
  need_gmem(g, src, "cp.async", f, l);
  if (src) acc(cur->lin, g, src, 0, f, l);
  acc(cur->lin, s, bytes, 1, f, l); if (hooks) hooks->pend(s, bytes, true);
  Copy c{(char*)s, (const char*)g, bytes, src, f, l, !lazy()};
  if (c.done) do_copy(c); // "early" schedule: overwrites the buffer at once
  else if (cfg.poison) { Quiet q; memset(s, 0xff, bytes); }
  cur->cp.push_back(c);
}
void cp_async_commit(const char*, int) { cur->cpg.push_back(std::move(cur->cp)); cur->cp.clear(); }
void cp_async_wait(int n, const char*, int) { // deferred copies read their source now: a late copy is legal until here
  auto& q = cur->cpg; size_t k = q.size() > (size_t)n ? q.size() - n : 0;
  for (size_t i = 0; i < k; i++) for (auto& c : q[i]) finish_copy(cur->lin, c);
  q.erase(q.begin(), q.begin() + k);
}

// ---------------- mbarrier ----------------
// bits 0-19 pending arrivals, 20-39 expected arrivals, 40-60 tx-count (signed), 61 phase, 62-63 = 2 when initialised
struct MB { int pend, exp, tx, ph; };
static MB mb_get(uint64_t* b, const char* op, const char* f, int l) {
  need_smem(b, 8, 8, op, f, l); Quiet q; uint64_t v = *b;
  if (v >> 62 != 2) fail(f, l, "%s: mbarrier is not initialised", op);
  return {(int)(v & 0xfffff), (int)(v >> 20 & 0xfffff), (int)((int64_t)(v << 3) >> 43), (int)(v >> 61 & 1)};
}
static void mb_put(uint64_t* b, MB m) {
  if (m.pend == 0 && m.tx == 0) {
    m.ph ^= 1; m.pend = m.exp;
    for (auto& t : T) if (t.st == St::MBar && t.mb == b && (uint32_t)m.ph != t.mbpar) set_ready(t);
  }
  Quiet q; *b = (uint64_t)m.pend | (uint64_t)m.exp << 20 | (uint64_t)(m.tx & 0x1fffff) << 40 | (uint64_t)m.ph << 61 | 2ull << 62;
}
void mbar_init(uint64_t* b, int n, const char* f, int l) { need_smem(b, 8, 8, "mbarrier.init", f, l); acc(cur->lin, b, 8, 1, f, l); Quiet q; *b = (uint64_t)n | (uint64_t)n << 20 | 2ull << 62; }
void mbar_inval(uint64_t* b, const char*, int) { Quiet q; *b = ~0ull; }
void mbar_arrive(uint64_t* b, int n, const char* f, int l) {
  if (hooks) hooks->release(b, cur->lin);
  MB m = mb_get(b, "mbarrier.arrive", f, l); if (m.pend < n) fail(f, l, "mbarrier.arrive: more arrivals than the count %d", m.exp); m.pend -= n; mb_put(b, m);
}
void mbar_expect_tx(uint64_t* b, int bytes, bool arrive, const char* f, int l) {
  if (hooks) hooks->release(b, cur->lin);
  MB m = mb_get(b, "mbarrier.expect_tx", f, l); m.tx += bytes;
  if (arrive) { if (m.pend < 1) fail(f, l, "mbarrier.arrive.expect_tx: more arrivals than the count %d", m.exp); m.pend--; }
  mb_put(b, m);
}
static void mb_complete_tx(uint64_t* b, int bytes) { if (hooks) hooks->release(b, -1); MB m = mb_get(b, "complete_tx", "tma", 0); m.tx -= bytes; mb_put(b, m); }
bool mbar_test(uint64_t* b, uint32_t par, const char* f, int l) {
  MB m = mb_get(b, "mbarrier.test_wait", f, l); bool ok = (uint32_t)m.ph != par;
  if (ok) { if (hooks) hooks->acquire(b, cur->lin); } else yield_hint();
  return ok;
}
void mbar_wait(uint64_t* b, uint32_t par, const char* f, int l) {
  for (;;) { MB m = mb_get(b, "mbarrier.try_wait", f, l); if ((uint32_t)m.ph != par) break; cur->mb = b; cur->mbpar = par; block_on(St::MBar, "mbarrier wait", f, l); }
  if (hooks) hooks->acquire(b, cur->lin);
}
void fence_proxy_async(const char*, int) { if (hooks) hooks->fence_proxy(cur->lin); }
void fence_mbar_init(const char*, int) { if (hooks) hooks->fence_proxy(cur->lin); }
void cp_async_mbar_arrive(uint64_t* b, bool, const char* f, int l) {
  auto cps = cur->cp; for (auto& g : cur->cpg) cps.insert(cps.end(), g.begin(), g.end()); cur->cp.clear(); cur->cpg.clear(); int t = cur->lin;
  auto op = [=] { for (auto& c : cps) finish_copy(t, c); if (hooks) hooks->release(b, t); MB m = mb_get(b, "cp.async.mbarrier.arrive", f, l); m.pend--; mb_put(b, m); };
  if (lazy()) engine.push_back(op); else op();
}

// ---------------- TMA ----------------
struct TMap { uint32_t magic; uint8_t esz, rank, swz, oob; uint64_t base; uint64_t dim[5]; uint64_t str[4]; uint16_t box[5]; uint8_t es[5]; };
static_assert(sizeof(TMap) <= sizeof(CUtensorMap), "");
static const TMap& tm_get(const CUtensorMap* m, int rank, const char* f, int l) { auto* t = (const TMap*)m; if (t->magic != 0x74616d54 || t->rank != rank) fail(f, l, "TMA: not a rank-%d tensor map", rank); return *t; }
static uint32_t swz(uint32_t a, int mode) { return mode == 3 ? a ^ (a >> 3 & 0x70) : mode == 2 ? a ^ (a >> 3 & 0x30) : mode == 1 ? a ^ (a >> 3 & 0x10) : a; } // CU_TENSOR_MAP_SWIZZLE_{32B=1,64B=2,128B=3}
template <class F> static void tm_walk(const TMap& t, const int* c, F&& fn) { // fn(linear byte in box, global ptr or null)
  uint32_t n = 1; for (int i = 0; i < t.rank; i++) n *= t.box[i];
  for (uint32_t e = 0; e < n; e++) {
    uint32_t r = e; bool in = true; uint64_t off = 0;
    for (int i = 0; i < t.rank; i++) { int64_t x = (int64_t)c[i] + (int64_t)(r % t.box[i]) * t.es[i]; r /= t.box[i]; if (x < 0 || (uint64_t)x >= t.dim[i]) in = false; else off += (uint64_t)x * (i ? t.str[i - 1] : t.esz); }
    fn(e * t.esz, in ? (char*)t.base + off : nullptr);
  }
}
void tma_load(void* s, const CUtensorMap* m, uint64_t* bar, int rank, const int* c, const char* f, int l) {
  const TMap t = tm_get(m, rank, f, l); int bytes = t.esz; for (int i = 0; i < rank; i++) bytes *= t.box[i];
  need_smem(s, bytes, 128, "TMA load", f, l); mb_get(bar, "TMA load", f, l);
  acc(cur->lin, s, bytes, 4, f, l); if (hooks) hooks->pend(s, bytes, true); // ordering is checked against the issuing thread
  std::vector<int> cc(c, c + rank);
  tm_walk(t, c, [&](uint32_t, const char* g) { if (g) { need_gmem(g, t.esz, "TMA load", f, l); acc(cur->lin, g, t.esz, 0, f, l); } });
  auto op = [=] {
    Quiet q; uint32_t base = (uint32_t)((char*)s - arena); // WIN is a multiple of 1024, so it does not matter to the swizzle
    tm_walk(t, cc.data(), [&](uint32_t e, const char* g) { char* d = arena + swz(base + e, t.swz); if (g) memcpy(d, g, t.esz); else memset(d, 0, t.esz); });
    if (hooks) { hooks->pend(s, bytes, false); acc(-1, s, bytes, 4, f, l); }
    mb_complete_tx(bar, bytes);
  };
  if (lazy()) { if (cfg.poison) { Quiet q; memset(s, 0xff, bytes); } engine.push_back(op); } else op();
}
void bulk_load(void* s, const void* g, int bytes, uint64_t* bar, const char* f, int l) {
  need_smem(s, bytes, 16, "cp.async.bulk", f, l); need_gmem(g, bytes, "cp.async.bulk", f, l); if (bytes % 16 || (uintptr_t)g % 16) fail(f, l, "cp.async.bulk: size and source must be multiples of 16");
  acc(cur->lin, s, bytes, 4, f, l); if (hooks) hooks->pend(s, bytes, true);
  auto op = [=] { Quiet q; memcpy(s, g, bytes); if (hooks) { hooks->pend(s, bytes, false); acc(-1, s, bytes, 4, f, l); } mb_complete_tx(bar, bytes); };
  if (lazy()) engine.push_back(op); else op();
}
void tma_store(const CUtensorMap* m, const void* s, int rank, const int* c, bool add, const char* f, int l) {
  const TMap t = tm_get(m, rank, f, l); int bytes = t.esz; for (int i = 0; i < rank; i++) bytes *= t.box[i]; (void)add;
  need_smem(s, bytes, 128, "TMA store", f, l); std::vector<int> cc(c, c + rank); int tid = cur->lin;
  acc(tid, s, bytes, 3, f, l); if (hooks) hooks->pend(s, bytes, 2);
  auto end = [=] { if (hooks) hooks->pend(s, bytes, 3); };
  auto op = [=] { Quiet q; uint32_t base = (uint32_t)((char*)s - arena); tm_walk(t, cc.data(), [&](uint32_t e, char* g) { if (g) { memcpy(g, arena + swz(base + e, t.swz), t.esz); if (hooks) hooks->host_write(g, t.esz); } }); };
  if (lazy()) cur->bulk.push_back([=] { end(); op(); }); else { op(); cur->bulk.push_back(end); }
}
void bulk_commit(const char*, int) { cur->bulkg.push_back(std::move(cur->bulk)); cur->bulk.clear(); }
void bulk_wait(int n, bool, const char*, int) { auto& q = cur->bulkg; size_t k = q.size() > (size_t)n ? q.size() - n : 0; for (size_t i = 0; i < k; i++) for (auto& o : q[i]) o(); q.erase(q.begin(), q.begin() + k); }

// ---------------- wgmma ----------------
// byte offset of element (i along M or N, k) of a 16-deep bf16/f16 operand, before the swizzle (units and names follow the PTX descriptor)
static uint32_t desc_off(int i, int k, uint32_t lbo, uint32_t sbo, int sw, bool mn_major) {
  if (!mn_major) {
    if (sw == 0) return (i % 8) * 16 + (i / 8) * sbo + (k / 8) * lbo + (k % 8) * 2;
    return (i % 8) * (sw == 1 ? 128 : sw == 2 ? 64 : 32) + (i / 8) * sbo + k * 2;
  }
  if (sw == 0) return (i % 8) * 2 + (i / 8) * sbo + (k % 8) * 16 + (k / 8) * lbo;
  int span = sw == 1 ? 64 : sw == 2 ? 32 : 16; // elements of one swizzle row
  return (i % span) * 2 + (i / span) * lbo + (k % 8) * span * 2 + (k / 8) * sbo;
}
static const int desc2tm[4] = {0, 3, 2, 1};
static const char* desc_ptr(uint64_t d, int i, int k, bool mn, const char* f, int l) {
  uint32_t start = (uint32_t)(d & 0x3fff) << 4, lbo = (uint32_t)(d >> 16 & 0x3fff) << 4, sbo = (uint32_t)(d >> 32 & 0x3fff) << 4; int sw = (int)(d >> 62);
  uint32_t a = swz(start + desc_off(i, k, lbo, sbo, sw, mn), desc2tm[sw]) - WIN;
  if (!in_smem(arena + a, 2)) fail(f, l, "wgmma: operand element (%d,%d) at shared offset %d is out of bounds", i, k, (int)a);
  return arena + a;
}
struct WgArg { float* d; uint64_t da, db; const uint32_t* a; int scale; };
void wgmma_fence(const char* f, int l) { cur->wg_fenced = true; collective(0xffffffffu, OP_WGMMA, true, nullptr, f, l, [](Group&, Warp&) {}); }
void wgmma(float* d, int N, uint64_t da, const uint32_t* a, uint64_t db, int scale, int ta, int tb, bool bf16, const char* f, int l) {
  WgArg x{d, da, db, a, scale};
  if (!cur->wg_fenced) fail(f, l, "wgmma without a wgmma.fence since the last wait");
  collective(0xffffffffu, OP_WGMMA, true, &x, f, l, [&](Group& g, Warp& w) {
    ++n_mma; struct S { float* d[32]; float A[16][16]; }; auto st = std::make_shared<S>(); auto* x0 = (WgArg*)g.arg[0];
    for (int i = 0; i < 32; i++) { auto* p = (WgArg*)g.arg[i]; st->d[i] = p->d; if (p->da != x0->da || p->db != x0->db || p->scale != x0->scale) fail(f, l, "wgmma: descriptors differ between lanes"); }
    bool rs = a != nullptr; uint64_t A = x0->da, Bd = x0->db; int sc = x0->scale, wid = w.id, row0 = (w.id % 4) * 16;
    if (rs) for (int i = 0; i < 32; i++) for (int r = 0; r < 4; r++) for (int h = 0; h < 2; h++) st->A[i / 4 + 8 * (r & 1)][(i % 4) * 2 + h + 8 * (r >> 1)] = cvt((uint16_t)(((WgArg*)g.arg[i])->a[r] >> (16 * h)), bf16);
    auto touch = [=](int how) { if (!hooks) return; auto one = [&](const char* p) { hooks->pend(p, 2, how); acc(wid * 32, p, 2, 3, f, l); };
      for (int k = 0; k < 16; k++) { if (!rs) for (int i = 0; i < 16; i++) one(desc_ptr(A, row0 + i, k, ta, f, l)); for (int n = 0; n < N; n++) one(desc_ptr(Bd, n, k, tb, f, l)); } };
    touch(2);
    auto op = [=] {
      Quiet q; alignas(32) float Am[16][16], Bm[16][256];
      auto rd = [&](const char* p) { uint16_t u; memcpy(&u, p, 2); return cvt(u, bf16); };
      for (int i = 0; i < 16; i++) for (int k = 0; k < 16; k++) Am[i][k] = rs ? st->A[i][k] : rd(desc_ptr(A, row0 + i, k, ta, f, l));
      for (int k = 0; k < 16; k++) for (int n = 0; n < N; n++) Bm[k][n] = rd(desc_ptr(Bd, n, k, tb, f, l));
      for (int i = 0; i < 32; i++) for (int j = 0; j < N / 8; j++) for (int r = 0; r < 4; r++) {
        int row = i / 4 + 8 * (r >> 1), col = j * 8 + (i % 4) * 2 + (r & 1); float s = sc ? st->d[i][j * 4 + r] : 0.f;
        for (int k = 0; k < 16; k++) s += Am[row][k] * Bm[k][col];
        st->d[i][j * 4 + r] = s;
      } };
    auto end = [=] { touch(3); };
    if (lazy()) w.wg.push_back([=] { end(); op(); }); else { op(); w.wg.push_back(end); } });
}
void wgmma_commit(const char* f, int l) { collective(0xffffffffu, OP_WGMMA, true, nullptr, f, l, [](Group&, Warp& w) { w.wgg.push_back(std::move(w.wg)); w.wg.clear(); }); }
void wgmma_wait(int n, const char* f, int l) {
  if (n == 0) cur->wg_fenced = false;
  collective(0xffffffffu, OP_WGMMA, true, nullptr, f, l, [=](Group&, Warp& w) { auto& q = w.wgg; size_t k = q.size() > (size_t)n ? q.size() - n : 0; for (size_t i = 0; i < k; i++) for (auto& o : q[i]) o(); q.erase(q.begin(), q.begin() + k); });
}

// ---------------- launch ----------------
static void fiber_entry() {
#if EMU_ASAN
  __sanitizer_finish_switch_fiber(nullptr, main_bot ? nullptr : &main_bot, main_bot ? nullptr : &main_size);
#endif
  g_body(g_ctx);
  Thread& t = *cur; Warp& w = *t.w;
  for (auto& g : w.g) if (g.mask & ~g.arrived & (1u << t.lane)) { set_err(where(g.f, g.l) + ": " + opname(g.op) + " waits for lane " + std::to_string(t.lane) + ", which has exited [" + who(t) + "]"); stop_block(); }
  t.st = St::Done; w.exited |= 1u << t.lane; ndone++; clr_ready(t);
  for (auto& b : B) if (b.n && b.need == 0 && b.n == nthr - ndone) bar_release(b); // __syncthreads counts non-exited threads
  yield();
  abort();
}
static std::string deadlock_text() {
  std::string s = "deadlock in block (" + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + "," + std::to_string(blockIdx.z) + "):"; std::map<std::string, int> m;
  for (auto& t : T) m[t.st == St::Done ? "exited" : std::string(t.what) + " at " + where(t.f, t.l)]++;
  for (auto& p : m) s += " " + std::to_string(p.second) + " threads " + p.first + ";";
  return s;
}
static void env() {
  auto e = [](const char* n, long d) { const char* s = getenv(n); return s ? strtol(s, nullptr, 10) : d; };
  cfg.sched = (int)e("EMU_SCHED", cfg.sched); cfg.async = (int)e("EMU_ASYNC", cfg.async); cfg.seed = (uint64_t)e("EMU_SEED", (long)cfg.seed); cfg.strict = e("EMU_STRICT", cfg.strict); cfg.poison = e("EMU_POISON", cfg.poison); cfg.preempt = (int)e("EMU_PREEMPT", cfg.preempt);
}
static bool run_block() {
  nthr = (int)(blockDim.x * blockDim.y * blockDim.z); int nw = (nthr + 31) / 32;
  T.resize(nthr); W.assign(nw, Warp()); by_rank.assign((nthr + 63) / 64 * 64, 0); memset(readybits, 0, sizeof readybits);
  std::vector<int> perm(nw); for (int i = 0; i < nw; i++) perm[i] = i;
  if (cfg.sched == 3) for (int i = nw - 1; i > 0; i--) std::swap(perm[i], perm[rnd() % (i + 1)]);
  while ((int)stacks.size() < nthr) { char* p = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); mprotect(p, 4096, PROT_NONE); stacks.push_back(p); }
  for (int i = 0; i < nw; i++) { W[i].id = i; int n = std::min(32, nthr - i * 32); W[i].exist = n == 32 ? 0xffffffffu : (1u << n) - 1; W[i].exited = 0; }
  ndone = 0; failed = false; quiet = 0; engine.clear(); slots.clear(); stat_off = (dyn_n + 1024 + 127) / 128 * 128; for (auto& b : B) b.n = 0, b.who.clear();
  if (cfg.poison) { ASAN_UNPOISON_MEMORY_REGION(arena, ARENA); memset(arena, 0xff, ARENA); }
  ASAN_POISON_MEMORY_REGION(arena + dyn_n, ARENA - dyn_n);
  for (int i = 0; i < nthr; i++) {
    Thread& t = T[i]; t.lin = i; t.lane = i & 31; t.w = &W[i >> 5]; t.stk = stacks[i]; t.fake = nullptr; t.wg_fenced = false; t.cp.clear(); t.cpg.clear(); t.bulk.clear(); t.bulkg.clear();
    t.tid = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    int rk = cfg.sched == 1 ? nthr - 1 - i : i; if (cfg.sched == 3 && !(nthr & 31)) rk = perm[i >> 5] * 32 + ((i & 31) ^ (int)(cfg.seed & 31));
    t.rank = rk; by_rank[rk] = i;
    void** sp = (void**)(t.stk + STACK); *--sp = nullptr; *--sp = (void*)fiber_entry; for (int k = 0; k < 6; k++) *--sp = nullptr; t.sp = sp;
    set_ready(t);
  }
  ++n_blocks; n_threads += nthr;
  if (hooks) hooks->block_begin(nthr, arena, ARENA);
  jump(&main_sp, pick(), &main_fake);
  if (hooks) hooks->block_end();
  if (!failed && ndone != nthr) { failed = true; set_err(deadlock_text()); }
#if EMU_ASAN
  if (failed) for (int i = 0; i < nthr; i++) ASAN_UNPOISON_MEMORY_REGION(stacks[i] + 4096, STACK - 4096);
#endif
  return !failed && err.empty();
}
void* (*ptx_find)(const void*) = nullptr; // set by emu_ptxrun.cpp
__attribute__((weak)) void ptx_args(void*, void**, const size_t*, int) {}
__attribute__((weak)) void ptx_body(void*) {}
char* smem_base() { return arena; }
cudaError_t launch_error(cudaError_t e, const char* text) { sticky = text; return g_err = e; }
cudaError_t run_grid(const LaunchCfg& c, const void* fn, void (*body)(void*), void* ctx, void** argv, const size_t* argsz, int nargs) {
  if (ptx_find) if (void* k = ptx_find(fn)) { ptx_args(k, argv, argsz, nargs); body = ptx_body; ctx = k; }
  env(); init_tab(); if (!arena) { arena = (char*)aligned_alloc(1 << 20, 1 << 20); }
  unsigned nt = c.block.x * c.block.y * c.block.z; auto bad = [&](const char* s) { sticky = s; return g_err = cudaErrorInvalidValue; };
  if (nt == 0 || nt > 1024 || c.block.z > 64) return bad("launch: bad block size");
  if (!c.grid.x || !c.grid.y || !c.grid.z || c.grid.y > 65535 || c.grid.z > 65535) return bad("launch: bad grid size");
  if (c.smem > 48 * 1024 && fn_smem[fn] < (int)c.smem) return bad("launch: over 48 KiB of dynamic shared memory without cudaFuncAttributeMaxDynamicSharedMemorySize");
  if (c.smem > DYN_MAX) return bad("launch: over 227 KiB of dynamic shared memory");
  g_body = body; g_ctx = ctx; gridDim = c.grid; blockDim = c.block; dyn_n = c.smem; err.clear(); rng = cfg.seed * 0x9E3779B97F4A7C15ull | 1;
  uint64_t n = (uint64_t)c.grid.x * c.grid.y * c.grid.z; std::vector<uint64_t> order(n); for (uint64_t i = 0; i < n; i++) order[i] = cfg.sched == 1 ? n - 1 - i : i;
  if (cfg.sched >= 2) for (uint64_t i = n; i-- > 1;) std::swap(order[i], order[rnd() % (i + 1)]);
  if (hooks) hooks->launch_begin();
  for (uint64_t b : order) { blockIdx = {(unsigned)(b % c.grid.x), (unsigned)(b / c.grid.x % c.grid.y), (unsigned)(b / c.grid.x / c.grid.y)}; if (!run_block()) { sticky = err; return g_err = cudaErrorLaunchFailure; } }
  sticky.clear(); return cudaSuccess;
}
} // namespace emu

// ---------------- cudart / driver subset: link this instead of -lcudart ----------------
using namespace emu;
extern "C" {
static const size_t GUARD = EMU_ASAN ? 0 : 256; // ASan brings its own red zones; the checker uses ours
cudaError_t cudaMalloc(void** p, size_t n) { void* q = nullptr; if (posix_memalign(&q, 256, n + 2 * GUARD + !n)) return cudaErrorMemoryAllocation; q = (char*)q + GUARD; memset(q, 0xff, n); allocs[(uintptr_t)q] = n; if (hooks) hooks->alloc(q, n); *p = q; return cudaSuccess; }
cudaError_t cudaFree(void* p) { if (p) { if (hooks) hooks->free_(p); allocs.erase((uintptr_t)p); free((char*)p - GUARD); } return cudaSuccess; }
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) { memmove(d, s, n); if (hooks) hooks->host_write(d, n); return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t) { return cudaMemcpy(d, s, n, k); }
cudaError_t cudaMemset(void* d, int v, size_t n) { memset(d, v, n); if (hooks) hooks->host_write(d, n); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t) { return cudaMemset(d, v, n); }
cudaError_t cudaDeviceSynchronize() { return g_err; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return g_err; }
cudaError_t cudaGetLastError() { cudaError_t e = g_err; g_err = cudaSuccess; return e; }
cudaError_t cudaPeekAtLastError() { return g_err; }
const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : sticky.c_str(); }
cudaError_t cudaGetDeviceCount(int* n) { *n = 1; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t* s) { *s = nullptr; return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { *s = nullptr; return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute a, int v) { if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) { if (v > (int)DYN_MAX) return g_err = cudaErrorInvalidValue; fn_smem[f] = v; } return cudaSuccess; }
CUresult emu_cuTensorMapEncodeTiled(CUtensorMap* m, CUtensorMapDataType dt, cuuint32_t rank, void* base, const cuuint64_t* dim, const cuuint64_t* str, const cuuint32_t* box, const cuuint32_t* es, CUtensorMapInterleave il, CUtensorMapSwizzle sw, CUtensorMapL2promotion, CUtensorMapFloatOOBfill oob) {
  static const int sz[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4}; // UINT8 UINT16 UINT32 INT32 UINT64 INT64 F16 F32 F64 BF16 F32_FTZ TF32 TF32_FTZ
  TMap t{}; if ((int)dt > 12 || rank < 1 || rank > 5 || (uintptr_t)base % 16 || il != CU_TENSOR_MAP_INTERLEAVE_NONE) return CUDA_ERROR_INVALID_VALUE;
  t.magic = 0x74616d54; t.esz = sz[dt]; t.rank = rank; t.swz = sw; t.oob = oob; t.base = (uint64_t)base;
  for (unsigned i = 0; i < rank; i++) {
    if (!dim[i] || dim[i] > 1ull << 32 || !box[i] || box[i] > 256 || !es[i] || es[i] > 8) return CUDA_ERROR_INVALID_VALUE;
    if (i && (str[i - 1] % 16 || str[i - 1] >= 1ull << 40)) return CUDA_ERROR_INVALID_VALUE;
    t.es[i] = i ? es[i] : 1; t.dim[i] = dim[i]; t.box[i] = (box[i] + t.es[i] - 1) / t.es[i]; // ceil(box / elementStride) elements; stride of dim 0 is ignored
    if (i) t.str[i - 1] = str[i - 1];
  }
  unsigned inner = box[0] * t.esz; unsigned span = sw == 3 ? 128 : sw == 2 ? 64 : sw == 1 ? 32 : 1u << 30;
  if (inner % 16 || inner > span || (int)sw > 3) return CUDA_ERROR_INVALID_VALUE;
  memset(m, 0, sizeof *m); memcpy(m, &t, sizeof t); return CUDA_SUCCESS;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* s, void** f, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* r) { *f = !strcmp(s, "cuTensorMapEncodeTiled") ? (void*)emu_cuTensorMapEncodeTiled : nullptr; if (r) *r = *f ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound; return cudaSuccess; }
}
