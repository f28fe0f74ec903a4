/* ptx_module.cpp - one PTX text: its functions (decoded when first asked for) and variables. */
#include "ptx.h"
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace hostcuda {

void ptx_die(const std::string &message)
{
    fprintf(stderr, "hostcuda: %s\n", message.c_str());
    abort();
}

std::string trimmed(const std::string &s)
{
    size_t first = s.find_first_not_of(" \t\n\r"), last = s.find_last_not_of(" \t\n\r");
    return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

std::vector<std::string> split(const std::string &s, char separator)
{
    std::vector<std::string> parts;
    std::string current;
    int depth = 0;
    for (char c : s) {
        if (c == '{' || c == '[' || c == '(') depth++;
        if (c == '}' || c == ']' || c == ')') depth--;
        if (c == separator && depth == 0) {
            parts.push_back(trimmed(current));
            current.clear();
        } else {
            current += c;
        }
    }
    if (!trimmed(current).empty()) parts.push_back(trimmed(current));
    return parts;
}

size_t align_up(size_t n, size_t align) { return align ? (n + align - 1) / align * align : n; }

Declaration parse_declaration(const std::string &text)
{
    Declaration d;
    std::istringstream words(text.substr(0, text.find('=')));
    std::string word;
    bool pointer = false;
    while (words >> word) {
        if (word == ".align") {
            size_t align;
            words >> align;
            if (!pointer) d.align = align; /* else it is that of what the pointer points to */
        } else if (word == ".ptr") {
            pointer = true;
        } else if (word[0] != '.') {
            d.name += word;
        } else if (word.size() >= 3 && strchr("usfb", word[1]) && isdigit((unsigned char)word[2])) {
            d.element = strtoul(word.c_str() + 2, nullptr, 10) / 8;
        }
    }
    size_t bracket = d.name.find('[');
    if (bracket != std::string::npos) {
        d.count = strtoul(d.name.c_str() + bracket + 1, nullptr, 10);
        d.name.resize(bracket);
    }
    return d;
}

namespace {

std::string without_comments(const std::string &s)
{
    std::string out;
    out.reserve(s.size());
    for (size_t i = 0; i < s.size(); i++) {
        if (s.compare(i, 2, "//") == 0) i = std::min(s.find('\n', i), s.size() - 1);
        if (s.compare(i, 2, "/*") == 0) i = s.find("*/", i) + 2;
        out += s[i];
    }
    return out;
}

bool starts(const std::string &s, const char *prefix)
{
    return s.compare(0, strlen(prefix), prefix) == 0;
}

/* "( .param .b64 a, .param .align 8 .b8 b[16] )" laid out from `*bytes` on */
std::vector<Parameter> parse_parameters(const std::string &text, size_t *bytes)
{
    std::vector<Parameter> list;
    for (const std::string &part : split(text, ',')) {
        Declaration d = parse_declaration(part);
        *bytes = align_up(*bytes, d.align ? d.align : d.element);
        list.push_back({d.name, *bytes, d.size()});
        *bytes += d.size();
    }
    return list;
}

/* ".maxntid 256, 1, 1" -> the product; 0: no such directive */
unsigned directive(const std::string &head, const char *name, unsigned *xyz)
{
    size_t at = head.find(name);
    if (at == std::string::npos) return 0;
    unsigned v[3] = {1, 1, 1};
    sscanf(head.c_str() + at + strlen(name), " %u , %u , %u", &v[0], &v[1], &v[2]);
    if (xyz) std::copy(v, v + 3, xyz);
    return v[0] * v[1] * v[2];
}

} // namespace

Module::Module(std::string text) : text_(std::move(text)) { scan(); }

Module::~Module()
{
    for (auto &v : variables_) {
        region_remove(v.second.memory);
        free(v.second.memory);
    }
}

int Module::find_shared(const std::string &name) const
{
    for (size_t i = 0; i < shared.size(); i++)
        if (shared[i].name == name) return (int)i;
    return -1;
}

/* Lines that end without a semicolon are taken out first; what is left are declarations up to a
 * semicolon, and heads with a body in braces. */
void Module::scan()
{
    std::istringstream lines(without_comments(text_));
    std::string line, rest;
    while (std::getline(lines, line)) {
        std::string word = trimmed(line);
        int number = 0;
        char name[1024];
        if (sscanf(word.c_str(), ".file %d \"%1023[^\"]\"", &number, name) == 2) {
            const char *slash = strrchr(name, '/');
            files[number] = slash ? slash + 1 : name;
        } else if (!starts(word, ".version") && !starts(word, ".target")
                   && !starts(word, ".address_size")) {
            rest += line + "\n";
        }
    }
    text_.clear();
    std::string head;
    for (size_t i = 0; i < rest.size(); i++) {
        if (rest[i] == ';') {
            item(trimmed(head), "");
            head.clear();
        } else if (rest[i] == '{' && head.find('=') == std::string::npos) {
            size_t start = i + 1;
            for (int depth = 1; depth; ) {
                i++;
                depth += (rest[i] == '{') - (rest[i] == '}');
            }
            item(trimmed(head), rest.substr(start, i - start));
            head.clear();
        } else {
            head += rest[i];
        }
    }
    for (const std::string &text : later_) {
        Declaration d = parse_declaration(text.substr(text.find('.')));
        fill_variable(variables_[d.name], d.element, text.substr(text.find('=') + 1));
    }
}

void Module::item(const std::string &head, const std::string &body)
{
    size_t entry = head.find(".entry"), func = head.find(".func");
    if (entry != std::string::npos || func != std::string::npos) {
        if (body.empty()) return; /* a forward declaration */
        size_t at = entry != std::string::npos ? entry + 6 : func + 5;
        std::string rest = trimmed(head.substr(at));
        if (rest[0] == '(') rest = trimmed(rest.substr(rest.find(')') + 1));
        pending_[trimmed(rest.substr(0, rest.find_first_of("( \t\n")))] = {head, body};
        return;
    }
    if (head.find(".shared") != std::string::npos) {
        Declaration d = parse_declaration(head);
        shared.push_back({d.name, d.size(), std::max(d.align, d.element), 0});
    } else if (head.find(".global") != std::string::npos
               || head.find(".const") != std::string::npos) {
        declare_variable(head);
    }
}

void Module::declare_variable(const std::string &text)
{
    Declaration d = parse_declaration(text);
    Variable v{nullptr, d.size()};
    if (posix_memalign((void **)&v.memory, 256, align_up(std::max<size_t>(v.size, 1), 256)))
        ptx_die("no memory for a module's variable");
    memset(v.memory, 0, v.size);
    region_add(v.memory, v.size);
    variables_[d.name] = v;
    if (text.find('=') != std::string::npos) later_.push_back(text);
}

/* {1, 0f3F800000, generic(name)+8, name}, or one value without braces */
void Module::fill_variable(Variable &v, size_t element, const std::string &values)
{
    std::string list = trimmed(values);
    if (list[0] == '{') list = list.substr(1, list.rfind('}') - 1);
    size_t at = 0;
    for (std::string value : split(list, ',')) {
        if (value[0] == '{') ptx_die("an initialiser of several dimensions: " + list);
        uint64_t bits;
        if (starts(value, "0f") || starts(value, "0d")) {
            bits = strtoull(value.c_str() + 2, nullptr, 16);
        } else if (isdigit((unsigned char)value[0]) || value[0] == '-') {
            bits = value[0] == '-' ? (uint64_t)strtoll(value.c_str(), nullptr, 0)
                                   : strtoull(value.c_str(), nullptr, 0);
        } else {
            if (starts(value, "generic(")) value.erase(value.find(')'), 1).erase(0, 8);
            size_t plus = value.find('+');
            Variable *other = variable(trimmed(value.substr(0, plus)));
            if (!other) ptx_die("an initialiser with an unknown name: " + value);
            bits = (uint64_t)other->memory;
            if (plus != std::string::npos) bits += strtoull(value.c_str() + plus + 1, nullptr, 0);
        }
        memcpy(v.memory + at, &bits, element);
        at += element;
    }
}

Variable *Module::variable(const std::string &name)
{
    auto at = variables_.find(name);
    return at == variables_.end() ? nullptr : &at->second;
}

const Function *Module::function(const std::string &name)
{
    auto known = functions_.find(name);
    if (known != functions_.end()) return known->second.get();
    auto at = pending_.find(name);
    if (at == pending_.end()) return nullptr;
    const std::string &head = at->second.head;
    auto f = std::make_unique<Function>();
    f->name = name;
    size_t after = head.find(name) + name.size();
    size_t open = head.find('(', after), close = head.find(')', after);
    if (open != std::string::npos)
        f->parameters = parse_parameters(head.substr(open + 1, close - open - 1),
                                         &f->parameter_bytes);
    size_t results = head.find('(');
    if (head.find(".func") != std::string::npos && results < head.find(name))
        f->results = parse_parameters(head.substr(results + 1, head.find(')') - results - 1),
                                      &f->parameter_bytes);
    unsigned threads = directive(head, ".maxntid", nullptr);
    if (!threads) threads = directive(head, ".reqntid", nullptr);
    if (threads) f->max_threads = threads;
    f->registers = directive(head, ".maxnreg", nullptr);
    directive(head, ".reqnctapercluster", f->cluster);
    Function &kept = *f;
    functions_[name] = std::move(f); /* before its body, which may call itself */
    decode_body(kept, at->second.body, *this);
    return &kept;
}

} // namespace hostcuda
