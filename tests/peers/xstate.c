/* User-mode Linux 6.1 keeps less of a task's extended processor state than a machine with AMX has, and the machine's kernel
 * refuses to take back less than all of it ("ptrace set fp regs failed"). Preloaded, this fills up with zeros: the part that is
 * missing belongs to AMX, which no program in a guest uses. */
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char state[1 << 16];

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	long pid = va_arg(arguments, long);
	long address = va_arg(arguments, long);
	long data = va_arg(arguments, long);
	va_end(arguments);

	/* The C library's peek returns the word; the system call stores it. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		long word = 0;
		long failed = syscall(SYS_ptrace, (long)request, pid, address, &word);
		return failed < 0 ? failed : word;
	}
	struct iovec *given = (struct iovec *)data;
	if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE && given->iov_len < sizeof state) {
		memset(state, 0, sizeof state);
		memcpy(state, given->iov_base, given->iov_len);
		struct iovec whole = { state, sizeof state };
		return syscall(SYS_ptrace, (long)request, pid, address, &whole);
	}
	return syscall(SYS_ptrace, (long)request, pid, address, data);
}
