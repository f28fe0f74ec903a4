/* fatbin.cpp - reads the container in which nvcc puts PTX and ELF images.
 *
 * Header: magic, version, 64-bit size of all entries. Entry: 16-bit kind (1 PTX, 2 ELF), 32-bit
 * size of its header at byte 4, 64-bit size of the image at 8, 32-bit architecture at 28.
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

/* Section .nv.info holds records {format, attribute, size, value}; attribute 0x2f is a pair of a
 * kernel's symbol and its number of registers. */
void read_registers(const char *image, size_t size, std::map<std::string, int> &registers)
{
    if (size < sizeof(Elf64_Ehdr) || memcmp(image, ELFMAG, SELFMAG)) return;
    Elf64_Ehdr header = read<Elf64_Ehdr>(image);
    if (header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr) > size) return;
    auto section = [&](size_t n) {
        return read<Elf64_Shdr>(image + header.e_shoff + n * sizeof(Elf64_Shdr));
    };
    const char *names = image + section(header.e_shstrndx).sh_offset;
    Elf64_Shdr info{}, symbols{};
    for (size_t n = 0; n < header.e_shnum; n++) {
        std::string name = names + section(n).sh_name;
        if (name == ".nv.info") info = section(n);
        if (name == ".symtab") symbols = section(n);
    }
    const char *strings = image + section(symbols.sh_link).sh_offset;
    const uint8_t sized = 4, register_count = 0x2f;
    for (const char *p = image + info.sh_offset, *end = p + info.sh_size; p + 4 <= end; ) {
        if ((uint8_t)p[0] == sized && (uint8_t)p[1] == register_count) {
            const char *at = image + symbols.sh_offset + read<uint32_t>(p + 4) * sizeof(Elf64_Sym);
            registers[strings + read<Elf64_Sym>(at).st_name] = (int)read<uint32_t>(p + 8);
        }
        p += 4 + ((uint8_t)p[0] == sized ? read<uint16_t>(p + 2) : 0);
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
