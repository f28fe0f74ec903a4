/* fatbin.h - the images that nvcc embeds in an object file. */
#pragma once
#include <map>
#include <string>

namespace hostcuda {

struct Images {
    std::string ptx;                     /* the newest that is not above the chip; "": none */
    std::map<std::string, int> registers; /* of each kernel, from the binary for the same chip */
};

/* wrapper: what __cudaRegisterFatBinary gets. Ends the program for compressed images: nvcc needs
 * -Xfatbin=-compress-mode=none. */
Images read_fatbin(const void *wrapper, int chip);

} // namespace hostcuda
