/* Lets writes to the store's files fail while a test says so.
 *
 *   FAIL_PREFIX  real path that the files' paths start with (the store and its -wal; -shm and locks are left alone)
 *   FAIL_DIR     folder in which the test makes a file: `full` for ENOSPC on every write, `sync` for EIO on every sync
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_failing(int fd, const char *how) {
  const char *prefix = getenv("FAIL_PREFIX"), *dir = getenv("FAIL_DIR");
  char link[64], path[4096], flag[4096];
  if (!prefix || !dir) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  if (strncmp(path, prefix, strlen(prefix)) != 0) return 0;
  if (strstr(path, "-shm") || strstr(path, ".lock")) return 0;
  snprintf(flag, sizeof flag, "%s/%s", dir, how);
  return access(flag, F_OK) == 0;
}

static int fail(int why) {
  errno = why;
  return -1;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
  return is_failing(fd, "full") ? fail(ENOSPC) : REAL(pwrite)(fd, data, count, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) { return pwrite(fd, data, count, (off_t)offset); }

ssize_t write(int fd, const void *data, size_t count) {
  return is_failing(fd, "full") ? fail(ENOSPC) : REAL(write)(fd, data, count);
}

int fdatasync(int fd) { return is_failing(fd, "sync") ? fail(EIO) : REAL(fdatasync)(fd); }

int fsync(int fd) { return is_failing(fd, "sync") ? fail(EIO) : REAL(fsync)(fd); }
