/* Remembers, for every write to the store's files, what it overwrote since the file was last synced.
 *
 * After kill -9 the test puts it back, and the files are as a power cut would have left them at worst: kill -9 alone never
 * tests fsync, since the kernel keeps what was written.
 *
 *   UNSYNCED_PREFIX  real path that the files' paths start with (the store and its -wal; locks and -shm are left alone)
 *   UNSYNCED_DIR     folder for the undo logs, one for each file, named as the file
 *   UNSYNCED_LIE     if set, syncing does nothing but claim success
 *   UNSYNCED_KILL    file: once it is there, the process is killed when it would sync, and has not
 *   UNSYNCED_FAIL    file: while it is there, syncing fails with EIO, and the kernel takes what was written for clean
 *
 * What a sync failed to bring to the disk later syncs leave out, unless it is written again. Its undo log is kept aside,
 * with ".lost" behind its name, until the whole file has been written again in one go and synced.
 *
 * An undo log is a row of records {offset, bytes overwritten, size of the file before} and the bytes; the record is written
 * before the write it undoes, so one cut short by the kill has nothing to undo.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

struct record {
  uint64_t offset, overwritten, size;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ino_t written_again; /* the file of which all was overwritten in one go, if any */

static int ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static int is_there(const char *variable) {
  const char *path = getenv(variable);
  return path && access(path, F_OK) == 0;
}

/* Names the undo log of a file of the store; -1 for other files. */
static int undo_path(int fd, char log[8192]) {
  const char *prefix = getenv("UNSYNCED_PREFIX"), *dir = getenv("UNSYNCED_DIR");
  char link[64], path[4096];
  if (!prefix || !dir) return -1;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return -1;
  path[n] = 0;
  if (strncmp(path, prefix, strlen(prefix)) != 0) return -1;
  if (ends_with(path, "-shm") || ends_with(path, ".lock") || ends_with(path, "-journal")) return -1;
  snprintf(log, 8192, "%s/%s", dir, strrchr(path, '/') + 1);
  return 0;
}

/* Opens it. */
static int undo_log(int fd) {
  char log[8192];
  if (undo_path(fd, log) != 0) return -1;
  return open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void die(const char *why) {
  perror(why);
  abort();
}

/* Keeps what a change of `count` bytes at `offset` (or a cut at `offset`, with count as much as is cut off) destroys. */
static void remember(int fd, uint64_t offset, uint64_t count) {
  int log = undo_log(fd);
  struct stat info;
  if (log < 0) return;
  if (fstat(fd, &info) != 0) die("fstat");
  uint64_t size = (uint64_t)info.st_size, there = offset < size ? size - offset : 0;
  struct record record = {offset, there < count ? there : count, size};
  char *entry = malloc(sizeof record + record.overwritten);
  if (!entry) die("malloc");
  memcpy(entry, &record, sizeof record);
  if (pread(fd, entry + sizeof record, record.overwritten, (off_t)offset) != (ssize_t)record.overwritten) die("pread");
  size_t length = sizeof record + record.overwritten;
  if (REAL(write)(log, entry, length) != (ssize_t)length) die("write undo log");
  if (offset == 0 && size > 0 && record.overwritten == size) written_again = info.st_ino;
  free(entry);
  close(log);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
  pthread_mutex_lock(&lock);
  remember(fd, (uint64_t)offset, count);
  ssize_t written = REAL(pwrite)(fd, data, count, offset);
  pthread_mutex_unlock(&lock);
  return written;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
  return pwrite(fd, data, count, (off_t)offset);
}

ssize_t write(int fd, const void *data, size_t count) {
  pthread_mutex_lock(&lock);
  off_t at = lseek(fd, 0, SEEK_CUR);
  if (at >= 0) remember(fd, (uint64_t)at, count);
  ssize_t written = REAL(write)(fd, data, count);
  pthread_mutex_unlock(&lock);
  return written;
}

int ftruncate(int fd, off_t length) {
  pthread_mutex_lock(&lock);
  remember(fd, (uint64_t)length, UINT64_MAX);
  int result = REAL(ftruncate)(fd, length);
  pthread_mutex_unlock(&lock);
  return result;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, (off_t)length); }

/* Synced: nothing to undo any more, but what an earlier sync lost. */
static int synced(int fd, int (*sync_it)(int)) {
  char log[8192], lost[8200];
  struct stat info;
  if (getenv("UNSYNCED_LIE")) return 0;
  if (undo_path(fd, log) != 0 || fstat(fd, &info) != 0) return sync_it(fd);
  snprintf(lost, sizeof lost, "%s.lost", log);
  pthread_mutex_lock(&lock);
  if (is_there("UNSYNCED_KILL")) kill(getpid(), SIGKILL);
  int result = is_there("UNSYNCED_FAIL") ? -1 : sync_it(fd);
  if (result == 0) {
    if (truncate(log, 0) != 0 && errno != ENOENT) die("truncate undo log");
    if (info.st_ino == written_again) unlink(lost);
  } else {
    rename(log, lost);
    errno = EIO;
  }
  pthread_mutex_unlock(&lock);
  return result;
}

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

int fsync(int fd) { return synced(fd, REAL(fsync)); }
