/* SPDX-License-Identifier: Apache-2.0 */
/* The API's routes, one a line: "METHOD PATH", and "missing" behind it where there is no such
 * thing. */
#include <stdio.h>
#include <stdlib.h>

#include "api-socket/resources.h"

int main(void)
{
	for (const struct resource *resource = resources; resource->path; resource++) {
		for (unsigned int on = 0; on < RESOURCE_METHODS; on++) {
			const struct operation *operation = &resource->operations[on];

			if (operation_exists(operation))
				printf("%s %s%s\n",
				       http_method_str(resource_method((enum resource_method)on)),
				       resource->path, operation->missing ? " missing" : "");
		}
	}
	return EXIT_SUCCESS;
}
