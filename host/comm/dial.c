/* dial.c - listening and connecting, IPv4 and IPv6, with a limit of time. */
#include "comm/wire.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool wire_first_here(const char *token)
{
    struct sockaddr_un a = {.sun_family =
                                AF_UNIX}; /* a name outside the file system: begins with 0 */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "equipoise-%.40s", token);
    return fd < 0 || !bind(fd, (struct sockaddr *)&a, sizeof a); /* held until the process ends */
}

/* On all addresses of the family: IPv6's takes IPv4 as well. -1 and errno. */
static int listen_on(int family, int *port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)*port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    struct sockaddr *a = family == AF_INET6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t n = family == AF_INET6 ? sizeof six : sizeof four;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), yes = 1, no = 0;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(fd, a, n) || listen(fd, 256) || getsockname(fd, a, &n)) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    *port = ntohs(family == AF_INET6 ? six.sin6_port : four.sin_port);
    return fd;
}

Status wire_listen(int *fd, int *port)
{
    *fd = listen_on(AF_INET6, port);
    if (*fd < 0 && errno != EADDRINUSE) *fd = listen_on(AF_INET, port);
    if (*fd >= 0) return OK;
    return FAIL(ERR_USAGE, "port %d, on which rank 0 waits for the other ranks: %s%s", *port,
                strerror(errno), errno == EADDRINUSE ? ", set another MASTER_PORT" : "");
}

/* errno of a connection attempt that may take so long. */
static int connected(int fd, const struct addrinfo *a, double seconds)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int why = 0;
    socklen_t n = sizeof why;
    if (!connect(fd, a->ai_addr, a->ai_addrlen)) return 0;
    if (errno != EINPROGRESS) return errno;
    if (poll(&p, 1, (int)(1e3 * seconds)) <= 0) return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n) ? errno : why;
}

int wire_dial(const char *host, int port, double seconds)
{
    char service[16];
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int fd = -1, yes = 1, why = EHOSTUNREACH;
    snprintf(service, sizeof service, "%d", port);
    if (!getaddrinfo(host, service, &hint, &list))
        for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
            fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
            why = fd < 0 ? errno : connected(fd, a, seconds);
            if (fd >= 0 && why) {
                close(fd);
                fd = -1;
            }
        }
    if (list) freeaddrinfo(list);
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    errno = why;
    return fd;
}
