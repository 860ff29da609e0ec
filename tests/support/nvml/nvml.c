/* A stand-in for NVIDIA's management library: what it says is read from the file that the variable
   STANDIN_GPUS names, at every call. Its lines: `gpu UUID NAME` and `process INDEX PID BYTES`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9 };

typedef struct {
  unsigned pid;
  unsigned long long memory;
  unsigned gpu_instance, compute_instance;
} process_t;

static FILE *state(void) {
  const char *path = getenv("STANDIN_GPUS");
  return path ? fopen(path, "r") : NULL;
}

/* The index-th GPU; -1 counts them. */
static int gpu(long index, char *uuid, char *name) {
  char line[512], found_uuid[128], found_name[128];
  int count = 0;
  FILE *file = state();
  if (!file) return 0;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "gpu %127s %127[^\n]", found_uuid, found_name) == 2 && count++ == index) {
      strcpy(uuid, found_uuid);
      strcpy(name, found_name);
    }
  fclose(file);
  return count;
}

int nvmlInitWithFlags(unsigned flags) {
  FILE *file = state();
  (void)flags;
  if (!file) return DRIVER_NOT_LOADED;
  fclose(file);
  return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int number) {
  return number == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Unknown Error";
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = gpu(-1, NULL, NULL);
  return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)(unsigned long)(index + 1);
  return SUCCESS;
}

static int text(void *device, char *buffer, unsigned size, int is_uuid) {
  char uuid[128] = "", name[128] = "";
  gpu((long)device - 1, uuid, name);
  snprintf(buffer, size, "%s", is_uuid ? uuid : name);
  return *buffer ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(void *device, char *buffer, unsigned size) {
  return text(device, buffer, size, 1);
}

int nvmlDeviceGetName(void *device, char *buffer, unsigned size) {
  return text(device, buffer, size, 0);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
  char line[512];
  unsigned room = *count, index;
  process_t one = {0};
  FILE *file = state();
  *count = 0;
  if (!file) return DRIVER_NOT_LOADED;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "process %u %u %llu", &index, &one.pid, &one.memory) == 3 &&
        index + 1 == (unsigned long)device) {
      if (found && *count < room) found[*count] = one;
      ++*count;
    }
  fclose(file);
  return *count > (found ? room : 0) ? INSUFFICIENT_SIZE : SUCCESS;
}
