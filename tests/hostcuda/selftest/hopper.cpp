/* hopper.cpp - cases of mbarrier, TMA, wgmma, clusters and setmaxnreg. */
#include "selftest.h"

namespace selftest {
static const Case cases[] = {{"none", [] {}, nullptr, 1, 32, 1, 0, 0, nullptr}};
Table hopper_cases() { return {cases, (int)(sizeof cases / sizeof *cases)}; }
} // namespace selftest
