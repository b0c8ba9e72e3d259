// Runs KERNEL, a __global__ function, on a grid of one dimension; given last in its source.
// THREADS is 0 where its loop strides over the grid, so that one thread does all the work; 1 where
// each thread has its own; 2 where the threads of a block wait for one another.
template <class... A> static constexpr size_t count(void (*)(A...)) { return sizeof...(A); }

template <class... A> static void sizes(void (*)(A...), size_t *found) {
  size_t each[] = {sizeof(A)..., 0};
  std::memcpy(found, each, sizeof(each) - sizeof(size_t));
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void **given, std::index_sequence<I...>) {
  kernel(*(std::remove_cv_t<std::remove_reference_t<A>> *)given[I]...);
}

template <class... A> static void call(void (*kernel)(A...), void **given) {
  call(kernel, given, std::index_sequence_for<A...>());
}

#if THREADS == 2
// The threads of a block as fibres: each runs up to the next wait in turn.
static void **arguments;
static bool ended[1024];
static unsigned running;

#if defined(__x86_64__)  // swapcontext makes a system call at every switch
typedef void *Context;
extern "C" void switch_stack(Context *from, Context to);
__asm__(".text\n"
        "switch_stack:\n"
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
        "ret\n");
static inline void swap(Context &from, Context &to) { switch_stack(&from, to); }
static void begin(Context &context, char *stack, size_t size, void (*entry)()) {
  void **top = (void **)((size_t)(stack + size) & ~size_t(15)) - 1;
  *--top = (void *)entry;  // what `ret` goes to, the stack as after a call
  context = top - 6;       // six registers, whatever they hold
}
#else
#include <ucontext.h>
typedef ucontext_t Context;
static inline void swap(Context &from, Context &to) { swapcontext(&from, &to); }
static void begin(Context &context, char *stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack, context.uc_stack.ss_size = size, context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

static Context scheduler, fibres[1024];
static void __syncthreads() { swap(fibres[running], scheduler); }
static void fibre() {
  call(KERNEL, arguments);
  ended[running] = true;
  swap(fibres[running], scheduler);
}
#endif

extern "C" size_t parameters() { return count(KERNEL); }
extern "C" void parameter_sizes(size_t *found) { sizes(KERNEL, found); }

extern "C" void launch(unsigned blocks, unsigned threads, void **given) {
#if THREADS == 0
  gridDim = blockDim = {1, 1, 1};
  blockIdx = threadIdx = {0, 0, 0};
  call(KERNEL, given);
#elif THREADS == 1
  gridDim = {blocks, 1, 1}, blockDim = {threads, 1, 1};
  for (unsigned b = 0; b < blocks; ++b)
    for (unsigned t = 0; t < threads; ++t) {
      blockIdx = {b, 0, 0}, threadIdx = {t, 0, 0};
      call(KERNEL, given);
    }
#else
  static const size_t SIZE = 32768;
  static char *const stacks = (char *)malloc(1024 * SIZE);  // pages that nobody touches are free
  arguments = given, gridDim = {blocks, 1, 1}, blockDim = {threads, 1, 1};
  for (unsigned b = 0; b < blocks; ++b) {
    for (unsigned t = 0; t < threads; ++t) {
      begin(fibres[t], &stacks[t * SIZE], SIZE, fibre);
      ended[t] = false;
    }
    for (bool more = true; more;) {
      more = false;
      for (unsigned t = 0; t < threads; ++t) {
        if (ended[t]) continue;
        running = t, blockIdx = {b, 0, 0}, threadIdx = {t, 0, 0};
        swap(scheduler, fibres[t]);
        more = more || !ended[t];
      }
    }
  }
#endif
}
