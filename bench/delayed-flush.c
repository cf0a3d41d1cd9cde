/*
 * A device in memory whose flush takes longer, for `nbdkit cc`: what ringbolt's benchmark puts a file system on.
 *
 *     nbdkit cc delayed-flush.c size=536870912 delay=1000      delay in microseconds
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static uint32_t delay_microseconds = 1000;
static int64_t size_bytes = 512 << 20;
static char *memory;

static int config(const char *key, const char *value) {
  if (strcmp(key, "delay") == 0) return nbdkit_parse_uint32_t(key, value, &delay_microseconds);
  if (strcmp(key, "size") == 0) return (size_bytes = nbdkit_parse_size(value)) < 0 ? -1 : 0;
  nbdkit_error("there is no parameter %s, but delay and size", key);
  return -1;
}

static int get_ready(void) {
  memory = calloc(1, size_bytes);
  if (memory != NULL) return 0;
  nbdkit_error("no memory for %lld bytes", (long long)size_bytes);
  return -1;
}

static void *open_device(int readonly) { return NBDKIT_HANDLE_NOT_NEEDED; }

static int64_t get_size(void *handle) { return size_bytes; }

static int pread_device(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags) {
  memcpy(buffer, memory + offset, count);
  return 0;
}

static int pwrite_device(void *handle, const void *buffer, uint32_t count, uint64_t offset, uint32_t flags) {
  memcpy(memory + offset, buffer, count);
  return 0;
}

static int flush(void *handle, uint32_t flags) {
  const struct timespec delay = {delay_microseconds / 1000000, delay_microseconds % 1000000 * 1000L};
  nanosleep(&delay, NULL);
  return 0;
}

static struct nbdkit_plugin plugin = {
  .name = "delayed_flush",
  .config = config,
  .get_ready = get_ready,
  .open = open_device,
  .get_size = get_size,
  .pread = pread_device,
  .pwrite = pwrite_device,
  .flush = flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
