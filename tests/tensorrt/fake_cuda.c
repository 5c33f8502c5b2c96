/* A CUDA driver without a GPU: memory is malloc, a stream runs what it is given at once, and a
   captured stream keeps a list that a launch replays. What is put on a stream that is none of its own goes to the
   CUDA runtime that is emulated in this process (tests/cuda/emulation), once fake_join has named it. For tests of the
   code that calls the driver. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
enum { MOST_OPS = 64, CHUNK = 256, MOST_STREAMS = 256 };
typedef void (*callback)(void);
typedef struct { int kind; void *to; const void *from; size_t size; callback call; } operation;
typedef struct { int count; operation ops[MOST_OPS]; } list;
typedef struct { int capturing; list recorded; } stream;

static int devices = 1, integrated = 0, live = 0, retained = 0, pushed = 0, launches = 0, copies = 0;
static stream *streams[MOST_STREAMS];
static int (*others_capturing)(void *);
static int (*others_enqueue)(void *, void (*)(void *), void *);
static char failing[64];
static int failure = 0, after = 0;

void fake_reset(int count, int shared) {
  devices = count; integrated = shared; failing[0] = 0; launches = copies = 0;
}
void fake_fail(const char *name, int code, int calls) {
  strncpy(failing, name, sizeof failing - 1); failure = code; after = calls;
}
int fake_live(void) { return live; }
int fake_retained(void) { return retained; }
int fake_pushed(void) { return pushed; }
int fake_launches(void) { return launches; }
int fake_copies(void) { return copies; }

static int own(stream *s) {
  for (int i = 0; i < MOST_STREAMS; i++) if (s && streams[i] == s) return 1;
  return 0;
}
void fake_join(int (*capturing)(void *), int (*enqueue)(void *, void (*)(void *), void *)) {
  others_capturing = capturing; others_enqueue = enqueue;
}
int fake_capturing(stream *s) { return own(s) ? s->capturing : others_capturing(s); }

static int failed(const char *name) {
  if (strcmp(name, failing) != 0) return 0;
  if (after-- > 0) return 0;
  return failure;
}
#define CHECK(name) do { int code = failed(name); if (code) return code; } while (0)

static void perform(operation op) {
  if (op.kind == 0) { memcpy(op.to, op.from, op.size); copies++; } else op.call();
}
static void perform_kept(void *op) { perform(*(operation *)op); }
static result add(stream *s, operation op) {
  if (!own(s)) {
    operation *kept = malloc(sizeof op); /* for ever: a graph may repeat it */
    *kept = op;
    return others_enqueue(s, perform_kept, kept);
  }
  if (!s->capturing) { perform(op); return 0; }
  if (s->recorded.count == MOST_OPS) return 901;
  s->recorded.ops[s->recorded.count++] = op;
  return 0;
}
result fake_record(stream *s, callback call) { operation op = {1, 0, 0, 0, call}; return add(s, op); }

result cuInit(unsigned flags) { (void)flags; CHECK("cuInit"); return 0; }
result cuDriverGetVersion(int *version) { *version = 12060; return 0; }
result cuDeviceGetCount(int *count) { CHECK("cuDeviceGetCount"); *count = devices; return 0; }
result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
result cuDeviceGetName(char *name, int length, int device) {
  (void)device; strncpy(name, "Fake GPU", length); return 0;
}
result cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return 0; }
result cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 16 ? 16 : attribute == 18 ? integrated : 0;
  return 0;
}
result cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device; CHECK("cuDevicePrimaryCtxRetain"); retained++; *context = &devices; return 0;
}
result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; retained--; return 0; }
result cuCtxPushCurrent_v2(void *context) { CHECK("cuCtxPushCurrent_v2"); if (context != &devices) return 201; pushed++; return 0; }
result cuCtxPopCurrent_v2(void **context) { *context = &devices; pushed--; return 0; }

static void *take(size_t size) {
  live++; size = size / CHUNK * CHUNK + 2 * CHUNK;
  return memset(aligned_alloc(CHUNK, size), 0, size);
}
result cuMemAlloc_v2(uint64_t *address, size_t size) {
  CHECK("cuMemAlloc_v2"); *address = (uint64_t)(uintptr_t)take(size); return 0;
}
result cuMemFree_v2(uint64_t address) { CHECK("cuMemFree_v2"); live--; free((void *)(uintptr_t)address); return 0; }
result cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
  CHECK("cuMemHostAlloc"); if (flags != 3) return 1; *pointer = take(size); return 0;
}
result cuMemFreeHost(void *pointer) { CHECK("cuMemFreeHost"); live--; free(pointer); return 0; }
result cuMemHostGetDevicePointer_v2(uint64_t *address, void *pointer, unsigned flags) {
  if (flags) return 1; *address = (uint64_t)(uintptr_t)pointer; return 0;
}
result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, stream *s) {
  CHECK("cuMemcpyHtoDAsync_v2"); operation op = {0, (void *)(uintptr_t)to, from, size, 0}; return add(s, op);
}
result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, stream *s) {
  CHECK("cuMemcpyDtoHAsync_v2"); operation op = {0, to, (const void *)(uintptr_t)from, size, 0}; return add(s, op);
}
result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, stream *s) {
  CHECK("cuMemcpyDtoDAsync_v2");
  operation op = {0, (void *)(uintptr_t)to, (const void *)(uintptr_t)from, size, 0}; return add(s, op);
}
result cuStreamCreate(stream **s, unsigned flags) {
  CHECK("cuStreamCreate"); if (flags != 1) return 1;
  for (int i = 0; i < MOST_STREAMS; i++) if (!streams[i]) {
    live++; *s = streams[i] = calloc(1, sizeof **s); return 0;
  }
  return 2;
}
result cuStreamDestroy_v2(stream *s) {
  CHECK("cuStreamDestroy_v2"); if (!own(s)) return 400;
  for (int i = 0; i < MOST_STREAMS; i++) if (streams[i] == s) streams[i] = NULL;
  live--; free(s); return 0;
}
result cuStreamIsCapturing(stream *s, int *status) {
  CHECK("cuStreamIsCapturing"); *status = fake_capturing(s); return 0;
}
result cuStreamSynchronize(stream *s) { CHECK("cuStreamSynchronize"); return s->capturing ? 900 : 0; }
result cuStreamBeginCapture_v2(stream *s, int mode) {
  CHECK("cuStreamBeginCapture_v2"); if (mode != 1) return 1; s->capturing = 1; s->recorded.count = 0; return 0;
}
result cuStreamEndCapture(stream *s, list **graph) {
  s->capturing = 0; CHECK("cuStreamEndCapture"); live++; *graph = malloc(sizeof **graph); **graph = s->recorded; return 0;
}
result cuGraphInstantiateWithFlags(list **executable, list *graph, uint64_t flags) {
  CHECK("cuGraphInstantiateWithFlags"); if (flags) return 1;
  live++; *executable = malloc(sizeof **executable); **executable = *graph; return 0;
}
result cuGraphDestroy(list *graph) { if (graph) { live--; free(graph); } return 0; }
result cuGraphExecDestroy(list *executable) { CHECK("cuGraphExecDestroy"); live--; free(executable); return 0; }
result cuGraphLaunch(list *executable, stream *s) {
  CHECK("cuGraphLaunch"); launches++;
  for (int i = 0; i < executable->count; i++) { result code = add(s, executable->ops[i]); if (code) return code; }
  return 0;
}
