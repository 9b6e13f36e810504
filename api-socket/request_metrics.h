/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the API's requests, by Firecracker's names. */
#ifndef MOTE_API_SOCKET_REQUEST_METRICS_H
#define MOTE_API_SOCKET_REQUEST_METRICS_H

#include <stdbool.h>

#include "api-socket/http.h"

struct metrics;

/* Requests without a counter are not counted. */
void request_metrics_count(struct metrics *metrics, enum http_method method, const char *path,
			   bool failed);

#endif
