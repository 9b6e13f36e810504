/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_BASE_ARRAY_H
#define MOTE_BASE_ARRAY_H

#define ARRAY_IS_POINTER(array)                                                                    \
	__builtin_types_compatible_p(__typeof__(array), __typeof__(&(array)[0]))

/* How many elements an array has; of a pointer it does not compile. */
#define ARRAY_SIZE(array)                                                                          \
	(sizeof(array) / sizeof((array)[0]) + 0 * sizeof(char[1 - 2 * ARRAY_IS_POINTER(array)]))

#endif
