/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "host/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "host/agent_connect.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct err err;
static struct vm vm;

static void set_up(void)
{
	char *here = getcwd(NULL, 0);

	ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", here, 1), 0);
	free(here);
}

static json_t *some_meta(void)
{
	return json_pack("{s:s, s:i}", "state", VM_STARTING, "cpus", 3);
}

/* There is no moment in which others find a part of it. */
START_TEST(what_is_first_published_is_whole)
{
	json_t *found;
	char path[PATH_MAX];

	ck_assert_int_eq(vm_create(&vm, "name", some_meta(), &err), 0);
	found = vm_find_running("name", &err);
	ck_assert_ptr_nonnull(found);
	ck_assert(vm_path(&vm, "vsock", path));
	ck_assert_str_eq(vm_string(found, "vsock"), path);
	ck_assert(vm_path(&vm, "api", path));
	ck_assert_str_eq(vm_string(found, "api"), path);
	ck_assert_str_eq(vm_string(found, "state"), VM_STARTING);
	ck_assert_int_eq(vm_number(found, "cpus"), 3);
	ck_assert_int_eq(vm_number(found, VM_SUPERVISOR), getpid());
	json_decref(found);
	vm_remove(&vm);
	ck_assert_ptr_null(vm_find("name", &err));
}
END_TEST

START_TEST(name_is_a_word)
{
	static const char *const bad[] = { "", "-x", ".x", "a b", "a/b", "a\n" };
	char text[VM_NAME_MAX + 2];

	memset(text, 'x', sizeof(text));
	text[VM_NAME_MAX + 1] = '\0';
	ck_assert_int_eq(vm_create(&vm, text, some_meta(), &err), -EINVAL);
	vm_close(&vm);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_int_eq(vm_create(&vm, bad[i], some_meta(), &err), -EINVAL);
		vm_close(&vm);
	}
	text[VM_NAME_MAX] = '\0';
	ck_assert_int_eq(vm_create(&vm, text, some_meta(), &err), 0);
	vm_remove(&vm);
}
END_TEST

START_TEST(name_is_of_one_alone)
{
	struct vm other;

	ck_assert_int_eq(vm_create(&vm, "name", some_meta(), &err), 0);
	ck_assert_int_eq(vm_create(&other, "name", some_meta(), &err), -EEXIST);
	vm_close(&other);
	vm_remove(&vm);
}
END_TEST

/* The number alone may be another's by the time that it is used. */
START_TEST(process_with_the_number_of_another_is_not_touched)
{
	json_t *meta = json_object();
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	vm_set_process(meta, VM_VMM, pid);
	ck_assert(vm_signal(meta, VM_VMM, 0));
	json_object_set_new(meta, VM_VMM "_start",
			    json_integer(vm_number(meta, VM_VMM "_start") - 1));
	ck_assert(!vm_signal(meta, VM_VMM, SIGKILL));
	ck_assert_int_eq(vm_open_process(meta, VM_VMM), -ESRCH);
	json_object_del(meta, VM_VMM "_start");
	ck_assert(!vm_signal(meta, VM_VMM, SIGKILL));
	ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
	vm_set_process(meta, VM_VMM, pid);
	ck_assert(vm_signal(meta, VM_VMM, SIGKILL));
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert(!vm_signal(meta, VM_VMM, SIGKILL));
	json_decref(meta);
}
END_TEST

START_TEST(socket_without_a_path_is_none)
{
	ck_assert_int_eq(agent_connect("", NULL, NULL, &err), -EINVAL);
	ck_assert_str_eq(err.text, "vsock socket: it has no path");
	ck_assert_int_eq(agent_listen("", &err), -EINVAL);
}
END_TEST

Suite *vm_suite(void)
{
	return SUITE("vm", set_up, NULL, what_is_first_published_is_whole, name_is_a_word,
		     name_is_of_one_alone, process_with_the_number_of_another_is_not_touched,
		     socket_without_a_path_is_none);
}
