/* SPDX-License-Identifier: Apache-2.0 */
/* The API's routes, one a line: "METHOD PATH", and "missing" behind it where there is no such
 * thing. */
#include <stdio.h>
#include <stdlib.h>

#include "api-socket/routes.h"

int main(void)
{
	for (const struct route *route = routes; route->path; route++)
		printf("%s %s%s\n", http_method_str(route->method), route->path,
		       route->missing ? " missing" : "");
	return EXIT_SUCCESS;
}
