// Preloaded into a server: names are asked for at 127.0.0.1, UDP port $PRM_NAME_SERVER_PORT, whatever /etc/resolv.conf
// says. A resolv.conf cannot name a port, and port 53 is not for tests.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NAME_SERVER_PORT 53

static FILE *Open(const char *function, const char *path, const char *mode) {
  static char resolv_conf[] = "nameserver 127.0.0.1\n";
  if (strcmp(path, "/etc/resolv.conf") == 0) return fmemopen(resolv_conf, strlen(resolv_conf), "r");
  FILE *(*next)(const char *, const char *) = dlsym(RTLD_NEXT, function);
  return next(path, mode);
}

FILE *fopen(const char *path, const char *mode) { return Open("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return Open("fopen64", path, mode); }

int connect(int fd, const struct sockaddr *address, socklen_t length) {
  int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
  const char *port = getenv("PRM_NAME_SERVER_PORT");
  struct sockaddr_in instead;
  if (port == NULL || address->sa_family != AF_INET || length < sizeof instead) return next(fd, address, length);
  memcpy(&instead, address, sizeof instead);
  if (ntohs(instead.sin_port) == NAME_SERVER_PORT) instead.sin_port = htons((unsigned short)atoi(port));
  return next(fd, (struct sockaddr *)&instead, sizeof instead);
}
