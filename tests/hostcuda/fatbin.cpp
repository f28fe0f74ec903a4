/* fatbin.cpp - reads the container {header, entries} in which nvcc puts PTX and ELF images.
 *
 * Header: magic, version, 64-bit size of all entries. Entry: 16-bit kind (1 PTX, 2 ELF), 32-bit size
 * of its header at byte 4, 64-bit size of the image at 8, 32-bit architecture at 28.
 */
#include "fatbin.h"
#include "ptx.h"
#include <elf.h>

namespace hostcuda {

namespace {

template <class T> T read(const char *p)
{
    T v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* A kernel's section .text.<name> has its number of registers in the top byte of sh_info. */
void read_registers(const char *image, size_t size, std::map<std::string, int> &registers)
{
    if (size < sizeof(Elf64_Ehdr) || memcmp(image, ELFMAG, SELFMAG)) return;
    Elf64_Ehdr header = read<Elf64_Ehdr>(image);
    auto section = [&](int n) {
        return read<Elf64_Shdr>(image + header.e_shoff + n * sizeof(Elf64_Shdr));
    };
    if (header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr) > size) return;
    const char *names = image + section(header.e_shstrndx).sh_offset;
    for (int n = 0; n < header.e_shnum; n++) {
        Elf64_Shdr s = section(n);
        std::string name = names + s.sh_name;
        if (name.compare(0, 6, ".text.") == 0) registers[name.substr(6)] = (int)(s.sh_info >> 24);
    }
}

} // namespace

Images read_fatbin(const void *wrapper, int chip)
{
    Images images;
    const char *data = read<const char *>((const char *)wrapper + 8);
    const char *p = data + 16, *end = p + read<uint64_t>(data + 8);
    int best = 0;
    struct Binary {
        const char *image;
        size_t size;
    };
    std::map<int, Binary> binaries;
    while (p < end) {
        int kind = read<uint16_t>(p), arch = (int)read<uint32_t>(p + 28);
        const char *image = p + read<uint32_t>(p + 4);
        size_t size = read<uint64_t>(p + 8);
        if (kind == 1 && arch <= chip && arch >= best) {
            images.ptx.assign(image, strnlen(image, size));
            best = arch;
            if (images.ptx.find(".version") == std::string::npos)
                ptx_die("compressed PTX: build with -Xfatbin=-compress-mode=none");
        } else if (kind == 2) {
            binaries[arch] = {image, size};
        }
        p = image + size;
    }
    if (binaries.count(best))
        read_registers(binaries[best].image, binaries[best].size, images.registers);
    return images;
}

} // namespace hostcuda
