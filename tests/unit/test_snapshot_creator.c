/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/snapshot/creator.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

/* What the VMM sends: the verb and the size, then the path. */
enum verb { CREATE, KEEP, DROP, CLEAR, NONE };
#define AT_PATH 16

/* The sanitizers' runtimes make calls of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FILTERED false
#else
#define FILTERED true
#endif

static struct creator creator;
static struct err err;

static void open_creator(void)
{
	ck_assert_msg(creator_open(&creator, FILTERED, &err) == 0, "%s", err.text);
}

static void set_up(void)
{
	ck_assert_int_eq(mkdir("files", 0700), 0);
	ck_assert_int_eq(chdir("files"), 0);
	open_creator();
}

static void wait_for_its_end(void)
{
	int status;

	ck_assert_int_gt(waitpid(-1, &status, 0), 0);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void tear_down(void)
{
	creator_close(&creator);
	while (waitpid(-1, NULL, 0) > 0)
		;
	ck_assert_int_eq(chdir(".."), 0);
	ck_assert_int_eq(system("rm -r files"), 0);
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void create(const char *path, const char *text)
{
	int fd = creator_create(&creator, path, 0, &err);

	ck_assert_msg(fd >= 0, "%s", err.text);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void keep(const char *path)
{
	ck_assert_msg(creator_keep(&creator, path, &err) == 0, "%s", err.text);
}

static void refuse(const char *path, uint64_t size, int errnum, const char *cause)
{
	char expected[ERR_TEXT_SIZE];

	ck_assert_int_eq(creator_create(&creator, path, size, &err), -errnum);
	snprintf(expected, sizeof(expected), "snapshot file %s: %s", path, cause);
	ck_assert_str_eq(err.text, expected);
}

static void assert_file(const char *path, const char *text)
{
	char *read = read_text(path);

	ck_assert_str_eq(read, text);
	free(read);
}

START_TEST(file_is_there_once_it_is_kept)
{
	struct stat st;

	umask(0);
	create("vm", "whole");
	ck_assert(!exists("vm"));
	ck_assert(exists("vm.part"));
	keep("vm");
	assert_file("vm", "whole");
	ck_assert(!exists("vm.part"));
	ck_assert_int_eq(stat("vm", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(file_has_its_size_as_a_hole)
{
	struct stat st;
	int fd = creator_create(&creator, "vm", MIB(64), &err);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	ck_assert_int_eq(st.st_size, MIB(64));
	ck_assert_int_eq(st.st_blocks, 0);
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}
END_TEST

START_TEST(what_is_dropped_is_gone)
{
	write_text("vm", "old");
	create("vm", "new");
	creator_drop(&creator, "vm");
	ck_assert(!exists("vm.part"));
	assert_file("vm", "old");
	ck_assert_int_eq(creator_keep(&creator, "vm", &err), -ENOENT);
	/* And it can be created once more, as what was never created can be dropped. */
	creator_drop(&creator, "vm");
	create("vm", "newer");
	keep("vm");
	assert_file("vm", "newer");
}
END_TEST

START_TEST(old_file_stays_until_then)
{
	write_text("vm", "old");
	create("vm", "new");
	assert_file("vm", "old");
	keep("vm");
	assert_file("vm", "new");
}
END_TEST

START_TEST(part_of_a_killed_one_is_replaced)
{
	write_text("vm.part", "half of a long one");
	create("vm", "new");
	keep("vm");
	assert_file("vm", "new");
	ck_assert(!exists("vm.part"));
}
END_TEST

START_TEST(link_in_the_place_of_a_part_is_not_followed)
{
	write_text("victim", "victim");
	ck_assert_int_eq(symlink("victim", "vm.part"), 0);
	create("vm", "new");
	assert_file("victim", "victim");
	keep("vm");
	assert_file("vm", "new");
	assert_file("victim", "victim");
}
END_TEST

START_TEST(folder_in_the_place_of_a_part_is_told)
{
	ck_assert_int_eq(mkdir("vm.part", 0700), 0);
	refuse("vm", 0, EISDIR, "Is a directory");
}
END_TEST

START_TEST(two_at_a_time)
{
	create("memory", "memory");
	refuse("memory", 0, EBUSY, "Device or resource busy");
	create("state", "state");
	refuse("third", 0, EBUSY, "Device or resource busy");
	ck_assert(!exists("third.part"));
	keep("memory");
	create("third", "third");
	keep("state");
	keep("third");
	assert_file("memory", "memory");
	assert_file("state", "state");
	assert_file("third", "third");
}
END_TEST

/* One would become the other's content. */
START_TEST(part_of_the_other_is_no_name)
{
	create("vm", "state");
	refuse("vm.part", 0, EBUSY, "Device or resource busy");
	creator_drop(&creator, "vm");
	create("vm.part", "memory");
	refuse("vm", 0, EBUSY, "Device or resource busy");
	keep("vm.part");
	assert_file("vm.part", "memory");
}
END_TEST

START_TEST(other_name_of_the_other_is_refused)
{
	write_text("vm", "old");
	create("vm", "memory");
	refuse("./vm", 0, EBUSY, "Device or resource busy");
	creator_drop(&creator, "vm");
	ck_assert(!exists("vm.part"));
	assert_file("vm", "old");
}
END_TEST

/* Devices would be replaced by files: a person who gives one does not mean that. */
START_TEST(only_regular_files_are_replaced)
{
	ck_assert_int_eq(mkfifo("fifo", 0600), 0);
	refuse("fifo", 0, EINVAL, "what is there is not a regular file");
	ck_assert_int_eq(symlink("/dev/null", "link"), 0);
	refuse("link", 0, EINVAL, "what is there is not a regular file");
	ck_assert_int_eq(mkdir("folder", 0700), 0);
	refuse("folder", 0, EINVAL, "what is there is not a regular file");
	ck_assert(!exists("fifo.part") && !exists("link.part") && !exists("folder.part"));
}
END_TEST

START_TEST(what_is_cleared_is_gone_before)
{
	write_text("vm", "old");
	/* Nothing that is not about to be replaced. */
	ck_assert_int_eq(creator_clear(&creator, "vm", &err), -ENOENT);
	assert_file("vm", "old");
	create("vm", "new");
	ck_assert_int_eq(creator_clear(&creator, "vm", &err), 0);
	ck_assert(!exists("vm"));
	ck_assert_int_eq(creator_clear(&creator, "vm", &err), 0);
	keep("vm");
	assert_file("vm", "new");
}
END_TEST

START_TEST(path_may_be_as_long_as_any)
{
	static char path[PATH_MAX + 1];

	for (size_t i = 0; i < PATH_MAX; i++)
		path[i] = i % 2 ? '/' : '.';
	refuse(path, 0, ENAMETOOLONG, "File name too long");
	/* One that is ended by the last byte that there is for it, but has no room for ".part". */
	path[PATH_MAX - 1] = '\0';
	ck_assert_int_eq(creator_create(&creator, path, 0, &err), -EINVAL);
	path[PATH_MAX - 2] = 'x';
	ck_assert_int_eq(creator_create(&creator, path, 0, &err), -ENAMETOOLONG);
	/* The name in its folder, too. */
	memset(path, 'x', NAME_MAX - 4);
	path[NAME_MAX - 4] = '\0';
	refuse(path, 0, ENAMETOOLONG, "File name too long");
	path[NAME_MAX - 5] = '\0';
	create(path, "long");
	keep(path);
	assert_file(path, "long");
	refuse("", 0, EINVAL, "Invalid argument");
}
END_TEST

START_TEST(folder_that_is_missing_is_told)
{
	refuse("missing/vm", 0, ENOENT, "No such file or directory");
	write_text("file", "");
	refuse("file/vm", 0, ENOTDIR, "Not a directory");
}
END_TEST

START_TEST(folder_of_another_user_is_told)
{
	if (geteuid() != 0)
		return;
	creator_close(&creator);
	ck_assert_int_eq(seteuid(65534), 0);
	open_creator();
	refuse("vm", 0, EACCES, "Permission denied");
	ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

START_TEST(size_past_what_is_possible_leaves_nothing)
{
	const struct rlimit limit = { 4096, RLIM_INFINITY };

	refuse("vm", UINT64_MAX, EFBIG, "File too large");
	ck_assert(!exists("vm.part"));
	creator_close(&creator);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	open_creator();
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY }),
			 0);
	refuse("vm", 8192, EFBIG, "File too large");
	ck_assert(!exists("vm.part"));
	/* It goes on. */
	create("vm", "small");
	keep("vm");
	assert_file("vm", "small");
}
END_TEST

START_TEST(file_that_is_taken_away_is_told)
{
	create("vm", "new");
	ck_assert_int_eq(unlink("vm.part"), 0);
	ck_assert_int_eq(creator_keep(&creator, "vm", &err), -ENOENT);
	ck_assert_str_eq(err.text, "snapshot file vm: No such file or directory");
}
END_TEST

START_TEST(it_ends_with_the_socket)
{
	write_text("memory", "old");
	create("memory", "new");
	create("state", "state");
	creator_close(&creator);
	wait_for_its_end();
	ck_assert(!exists("memory.part") && !exists("state.part") && !exists("state"));
	assert_file("memory", "old");
}
END_TEST

START_TEST(one_that_is_gone_is_told)
{
	ck_assert_int_eq(shutdown(creator.fd, SHUT_WR), 0);
	wait_for_its_end();
	ck_assert_int_lt(creator_create(&creator, "vm", 0, &err), 0);
	assert_contains(err.text, "snapshot file vm: ");
}
END_TEST

/* A VMM that a guest has taken over sends what it likes. */
static void send_raw(const void *bytes, size_t size)
{
	ck_assert_int_eq(send(creator.fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* It ends, and what was not kept goes. */
static void assert_ends_it(enum verb verb, const char *rest, size_t size)
{
	uint8_t message[AT_PATH + 64] = { 0 };

	create("vm", "half");
	message[0] = (uint8_t)verb;
	memcpy(message + AT_PATH, rest, size);
	send_raw(message, AT_PATH + size);
	wait_for_its_end();
	ck_assert(!exists("vm.part") && !exists("vm"));
	ck_assert_int_eq(recv(creator.fd, message, sizeof(message), 0), 0);
	creator_close(&creator);
	open_creator();
}

START_TEST(malformed_requests_end_it)
{
	static uint8_t large[AT_PATH + PATH_MAX + 100];

	assert_ends_it(CREATE, "", 0);
	assert_ends_it(KEEP, "vm", 2);
	assert_ends_it(CREATE, "\0", 1);
	assert_ends_it(CREATE, "\0x", 3);
	assert_ends_it(NONE, "vm", 3);
	assert_ends_it(0x80, "vm", 3);
	/* Without an end to the path in what is taken of it. */
	memset(large, 'x', sizeof(large));
	memset(large, 0, AT_PATH);
	large[sizeof(large) - 1] = '\0';
	send_raw(large, sizeof(large));
	wait_for_its_end();
	creator_close(&creator);
	for (size_t size = 1; size < AT_PATH; size++) {
		open_creator();
		send_raw(large, size);
		wait_for_its_end();
		creator_close(&creator);
	}
	ck_assert_int_eq(system("test -z \"$(ls -A)\""), 0);
}
END_TEST

Suite *snapshot_creator_suite(void)
{
	return SUITE(
		"snapshot_creator", set_up, tear_down, file_is_there_once_it_is_kept,
		file_has_its_size_as_a_hole, what_is_dropped_is_gone, old_file_stays_until_then,
		part_of_a_killed_one_is_replaced, link_in_the_place_of_a_part_is_not_followed,
		folder_in_the_place_of_a_part_is_told, two_at_a_time, part_of_the_other_is_no_name,
		other_name_of_the_other_is_refused, only_regular_files_are_replaced,
		what_is_cleared_is_gone_before, path_may_be_as_long_as_any,
		folder_that_is_missing_is_told, folder_of_another_user_is_told,
		size_past_what_is_possible_leaves_nothing, file_that_is_taken_away_is_told,
		it_ends_with_the_socket, one_that_is_gone_is_told, malformed_requests_end_it);
}
