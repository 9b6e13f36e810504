/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fatal.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/log.h"
#include "base/record.h"
#include "base/text.h"

#define EXIT_UNEXPECTED 2

/* The main thread's, for a stack that has run over. */
#define HANDLER_STACK_SIZE (64 << 10)

static const struct fatal_signal {
	const char *name;
	int number;
	int exit_code;
} fatal_signals[] = {
	{ "SIGSYS", SIGSYS, 148 },
	{ "SIGBUS", SIGBUS, 149 },
	{ "SIGSEGV", SIGSEGV, 150 },
	{ "SIGXFSZ", SIGXFSZ, 151 },
	{ "SIGXCPU", SIGXCPU, 154 },
	{ "SIGPIPE", SIGPIPE, 155 },
	{ "SIGHUP", SIGHUP, 156 },
	{ "SIGILL", SIGILL, 157 },
	{ "SIGFPE", SIGFPE, EXIT_UNEXPECTED },
	{ "SIGABRT", SIGABRT, EXIT_UNEXPECTED },
};

#define FATAL_SIGNALS (ARRAY_SIZE(fatal_signals))

static void (*call_last)(void *opaque, int signal);
static void *call_opaque;
static atomic_int handling; /* the thread that is about to end the process */

static const struct fatal_signal *find(int number)
{
	for (size_t i = 0; i < FATAL_SIGNALS; i++) {
		if (fatal_signals[i].number == number)
			return &fatal_signals[i];
	}
	return NULL;
}

int fatal_exit_code(int number)
{
	const struct fatal_signal *known = find(number);

	return known ? known->exit_code : EXIT_UNEXPECTED;
}

static void log_signal(int number, const siginfo_t *info)
{
	const struct fatal_signal *known = find(number);
	char sentence[160];
	struct text text = text_in(sentence, sizeof(sentence));

	text_add(&text, "The VMM ends by signal ");
	text_add(&text, known ? known->name : "?");
	if (info->si_code == SI_USER || info->si_code == SI_TKILL) {
		text_add(&text, ", sent by process ");
		text_add_number(&text, (uint64_t)info->si_pid);
	} else if (number == SIGSYS) {
		text_add(&text, ": system call ");
		text_add_number(&text, (uint64_t)info->si_syscall);
		text_add(&text, " is not allowed");
	} else if (number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE) {
		text_add(&text, " at ");
		text_add_hex(&text, (uint64_t)(uintptr_t)info->si_addr);
	}
	record_error(sentence);
	text_add(&text, ".");
	log_from_handler(LOG_ERROR, sentence);
}

static void on_fatal(int number, siginfo_t *info, void *context)
{
	int none = 0;

	(void)context;
	if (!atomic_compare_exchange_strong(&handling, &none, gettid())) {
		/* A fault in what follows must end it; another thread's must not. */
		if (none == gettid())
			_exit(fatal_exit_code(number));
		for (;;)
			pause();
	}
	log_signal(number, info);
	call_last(call_opaque, number);
	_exit(fatal_exit_code(number));
}

void fatal_watch(void (*last)(void *opaque, int signal), void *opaque)
{
	static char stack[HANDLER_STACK_SIZE];
	const stack_t handler_stack = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_sigaction = on_fatal };
	struct sigaction present;

	call_last = last;
	call_opaque = opaque;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < FATAL_SIGNALS; i++)
		sigdelset(&action.sa_mask, fatal_signals[i].number);
	if (sigaltstack(NULL, &(stack_t){ 0 }) == 0)
		(void)sigaltstack(&handler_stack, NULL);
	for (size_t i = 0; i < FATAL_SIGNALS; i++) {
		if (sigaction(fatal_signals[i].number, NULL, &present) == 0 &&
		    !(present.sa_flags & SA_SIGINFO) && present.sa_handler == SIG_DFL)
			(void)sigaction(fatal_signals[i].number, &action, NULL);
	}
}
