/* ptx_address.h - state spaces: where an instruction's address points, and telling the machine. */
#pragma once
#include "ptx_decode.h"

namespace hostcuda {

enum State { IN_GENERIC, IN_GLOBAL, IN_SHARED, IN_CLUSTER, IN_OWN /* local, param, const */ };

State state_of(const Words &w);

inline char *address_of(const Frame &f, const Inst &i, int slot, State s)
{
    if (s == IN_SHARED || s == IN_CLUSTER)
        return shared_pointer(f.get<uint32_t>(slot) + (uint32_t)i.offset);
    return (char *)f.slot[slot] + i.offset;
}

inline void announce(const Frame &f, const Inst &i, char *p, size_t bytes, Access how, State s)
{
    static const Space spaces[] = {Space::GENERIC, Space::GLOBAL, Space::SHARED,
                                   Space::SHARED_CLUSTER};
    if (s == IN_OWN || (s == IN_GENERIC && is_own_memory(p))) return;
    access(p, bytes, how, spaces[s], f.at(i));
}

/* The handler of H<state>, for all states. */
template <template <State> class H, class Choose> Handler for_state(State s, Choose choose)
{
    switch (s) {
    case IN_GENERIC: return choose(H<IN_GENERIC>{});
    case IN_GLOBAL: return choose(H<IN_GLOBAL>{});
    case IN_SHARED: return choose(H<IN_SHARED>{});
    case IN_CLUSTER: return choose(H<IN_CLUSTER>{});
    default: return choose(H<IN_OWN>{});
    }
}

} // namespace hostcuda
