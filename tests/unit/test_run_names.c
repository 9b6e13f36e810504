/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/array.h"
#include "cli/run_names.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct run_names names;

static void set_up(void)
{
	memset(&names, 0, sizeof(names));
}

static void check_words(const char *expected)
{
	char words[4096];

	ck_assert_int_eq(run_names_words(&names, NULL, words, sizeof(words)), 0);
	ck_assert_str_eq(words, expected);
}

static void take(const char *text, bool ipv6)
{
	write_file("resolv.conf", text, strlen(text));
	run_names_take_host(&names, "resolv.conf", "10.0.2.3", ipv6 ? "fd00::3" : NULL, true);
}

START_TEST(what_is_given)
{
	ck_assert_int_eq(run_names_hostname(&names, "a-b.c"), 0);
	ck_assert_int_eq(run_names_add_host(&names, "one:192.0.2.1"), 0);
	ck_assert_int_eq(run_names_add_host(&names, "two:2001:db8::1"), 0);
	ck_assert_int_eq(run_names_add_server(&names, "192.0.2.53"), 0);
	ck_assert_int_eq(run_names_add_option(&names, "ndots:2"), 0);
	check_words(" mote.hostname=a-b.c mote.hosts=one=192.0.2.1,two=2001:db8::1"
		    " mote.dns=192.0.2.53 mote.resolver-options=ndots:2");
}
END_TEST

START_TEST(what_would_be_another_word_is_refused)
{
	ck_assert_int_eq(run_names_hostname(&names, "a b"), -EINVAL);
	ck_assert_int_eq(run_names_hostname(&names, ""), -EINVAL);
	ck_assert_int_eq(run_names_add_host(&names, "one"), -EINVAL);
	ck_assert_int_eq(run_names_add_host(&names, "one:x"), -EINVAL);
	ck_assert_int_eq(run_names_add_host(&names, "a,b:192.0.2.1"), -EINVAL);
	ck_assert_int_eq(run_names_add_server(&names, "192.0.2.1 init=/x"), -EINVAL);
	ck_assert_int_eq(run_names_add_search(&names, "a b"), -EINVAL);
	ck_assert_int_eq(run_names_add_option(&names, "a\"b"), -EINVAL);
	check_words("");
}
END_TEST

START_TEST(lists_are_bounded)
{
	int rc = 0;

	for (unsigned int i = 0; i < RUN_NAMES_SIZE && rc == 0; i++)
		rc = run_names_add_search(&names, "example.org");
	ck_assert_int_eq(rc, -E2BIG);
	ck_assert_str_eq(names.search + strlen(names.search) - 4, ".org");
}
END_TEST

START_TEST(what_the_host_has)
{
	take("# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.2\nnameserver 2001:db8::2\n"
	     "search old.example\nsearch a.example b.example\noptions edns0 ndots:3\n",
	     false);
	check_words(" mote.dns=10.0.2.3,192.0.2.2 mote.search=a.example,b.example"
		    " mote.resolver-options=edns0,ndots:3");
}
END_TEST

START_TEST(servers_that_no_guest_reaches)
{
	take("nameserver 192.0.2.1\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n"
	     "nameserver 192.0.2.4\n",
	     true);
	check_words(" mote.dns=10.0.2.3,fd00::3,192.0.2.4");
}
END_TEST

START_TEST(servers_of_both_kinds)
{
	take("nameserver 2001:db8::1\nnameserver 127.0.0.53\nnameserver 2001:db8::2\n"
	     "nameserver 192.0.2.4\n",
	     true);
	check_words(" mote.dns=fd00::3,10.0.2.3,2001:db8::2");
}
END_TEST

START_TEST(host_of_ipv6_alone)
{
	static const struct {
		const char *text;
		const char *words;
	} hosts[] = {
		{ "nameserver 2001:db8::1\n", " mote.dns=fd00::3" },
		{ "nameserver 127.0.0.53\n", " mote.dns=10.0.2.3" },
		{ "nameserver ::1\nnameserver 127.0.0.1\n", " mote.dns=fd00::3,10.0.2.3" },
		/* The host itself does not reach it. */
		{ "nameserver 192.0.2.1\n", " mote.dns=fd00::3" },
		{ "", " mote.dns=fd00::3" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		set_up();
		write_text("resolv.conf", hosts[i].text);
		run_names_take_host(&names, "resolv.conf", "10.0.2.3", "fd00::3", false);
		check_words(hosts[i].words);
	}
}
END_TEST

START_TEST(host_without_servers)
{
	take("", false);
	check_words(" mote.dns=10.0.2.3");
}
END_TEST

START_TEST(what_is_given_counts)
{
	run_names_add_server(&names, "192.0.2.9");
	run_names_add_search(&names, "mine.example");
	take("nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example\noptions edns0\n",
	     false);
	check_words(" mote.dns=192.0.2.9 mote.search=mine.example mote.resolver-options=edns0");
}
END_TEST

Suite *run_names_suite(void)
{
	return SUITE("run_names", set_up, NULL, what_is_given,
		     what_would_be_another_word_is_refused, lists_are_bounded, what_the_host_has,
		     servers_that_no_guest_reaches, servers_of_both_kinds, host_of_ipv6_alone,
		     host_without_servers, what_is_given_counts);
}
