"""Where the tokenizers library and utf8proc treat a character otherwise: the tables of host/weights/tokenizer_unicode.c.

Asks both for every character: class (\\p{L}, \\p{N}), white space, lower case, NFC alone and between two marks of high and low
combining class (a character that takes part in reordering lets the low one pass); and, for every canonical pair, whether it
composes. Needs libutf8proc.so.
"""
import ctypes
import ctypes.util
import unicodedata

from tokenizers import Regex, normalizers

lib = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
lib.utf8proc_NFC.restype = ctypes.c_void_p
lib.utf8proc_version.restype = ctypes.c_char_p
lib.utf8proc_unicode_version.restype = ctypes.c_char_p
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
nfc, lower = normalizers.NFC().normalize_str, normalizers.Lowercase().normalize_str
is_letter, is_number, is_space = (normalizers.Replace(Regex(r), "yes").normalize_str for r in (r"\p{L}", r"\p{N}", r"\s"))
SPACES = {9, 10, 11, 12, 13, 32, 0x85, 0xa0, 0x1680, *range(0x2000, 0x200b), 0x2028, 0x2029, 0x202f, 0x205f, 0x3000}


def utf8proc_nfc(s):
    p = lib.utf8proc_NFC(s.encode() + b"\0")
    text = ctypes.string_at(p).decode()
    free(p)
    return text


def ranges(rows):
    """rows of (character, value) joined where the value stays"""
    out = []
    for c, v in rows:
        if out and out[-1][1] == c - 1 and out[-1][2] == v:
            out[-1][1] = c
        else:
            out.append([c, c, v])
    return ", ".join(f"{{{a:#x}, {b:#x}}}" + (f" {v}" if v else "") for a, b, v in out)


found = {"letters": [], "numbers": [], "neither": [], "spaces": [], "lowers": [], "nfc": [], "alone": [], "pairs": []}
for c in range(1, 0x110000):
    if 0xd800 <= c < 0xe000:
        continue
    s, kind = chr(c), lib.utf8proc_category(c)
    theirs = "letters" if is_letter(s) == "yes" else "numbers" if is_number(s) == "yes" else "neither"
    if theirs != ("letters" if 1 <= kind <= 5 else "numbers" if 9 <= kind <= 11 else "neither"):
        found[theirs].append((c, 0))
    if (is_space(s) == "yes") != (c in SPACES):
        found["spaces"].append((c, 0))
    if lower(s) != chr(lib.utf8proc_tolower(c)) and c != 0x130:
        found["lowers"].append((c, ord(lower(s)) - c))
    if nfc(s) != utf8proc_nfc(s):
        found["nfc"].append((c, 0))
    between = "\u0315" + s + "\u0334"
    if nfc(between) != utf8proc_nfc(between):
        assert nfc(between) == between
        found["alone"].append((c, 0))
    pair = unicodedata.decomposition(s).split()
    if len(pair) == 2 and pair[0][0] != "<":
        pair = "".join(chr(int(p, 16)) for p in pair)
        if nfc(pair) != utf8proc_nfc(pair):
            found["pairs"].append((c, 0))
print("utf8proc", lib.utf8proc_version().decode(), "Unicode", lib.utf8proc_unicode_version().decode())
for name, rows in found.items():
    print(f"{name}: {ranges(rows)}")
