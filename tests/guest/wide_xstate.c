/* Lets a User Mode Linux of before 6.11 run on a CPU with AMX. It keeps 2,696 bytes of a process's extended registers,
 * enough for AVX-512; where the CPU has more, the host's kernel refuses so short a state with EFAULT. Nothing in a guest
 * can use AMX, so what is missing is always in its initial state: zeros. Preloaded (LD_PRELOAD) into linux.uml.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static _Alignas(64) char state[1 << 16];
static size_t state_bytes;

long ptrace(enum __ptrace_request request, ...)
{
    static long (*next)(enum __ptrace_request, ...);
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (!next)
        next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
    if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
        return next(request, pid, address, data);
    if (!state_bytes) {
        struct iovec whole = {state, sizeof state};
        if (next(PTRACE_GETREGSET, pid, address, &whole) < 0)
            return -1;
        state_bytes = whole.iov_len;
        memset(state, 0, sizeof state);
    }
    struct iovec *given = data;
    if (given->iov_len >= state_bytes)
        return next(request, pid, address, data);
    memcpy(state, given->iov_base, given->iov_len);
    return next(request, pid, address, &(struct iovec){state, state_bytes});
}
