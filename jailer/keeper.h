/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jailer's own process, which stays outside: it prepares what the jail is made of, starts the
 * prisoner, passes signals on to it, and removes everything when it has ended. If the keeper ends
 * before, by SIGKILL, the VMM is killed, and what is left is removed by the next one of the same
 * id.
 */
#ifndef MOTE_JAILER_KEEPER_H
#define MOTE_JAILER_KEEPER_H

#include <stdint.h>

struct err;
struct jailer_args;

/*
 * The VMM's end as waitpid gives it; -errno with err set if the jail could not be built, and then
 * nothing of it is left. With --daemonize the process that was started ends in here, once the VMM
 * runs or cannot, and the one that returns is in the background.
 */
int keeper_run(const struct jailer_args *args, int64_t start_us, struct err *err);

#endif
