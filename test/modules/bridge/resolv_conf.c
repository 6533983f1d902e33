// Preloaded into a server: what opens /etc/resolv.conf gets the file that $PRM_RESOLV_CONF names.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef FILE *(*OpenFunction)(const char *, const char *);

static FILE *Open(const char *name, const char *path, const char *mode) {
  const char *instead = getenv("PRM_RESOLV_CONF");
  OpenFunction next = (OpenFunction)dlsym(RTLD_NEXT, name);
  return next(instead != NULL && strcmp(path, "/etc/resolv.conf") == 0 ? instead : path, mode);
}

FILE *fopen(const char *path, const char *mode) { return Open("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return Open("fopen64", path, mode); }
