/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the service have of each other. */
#ifndef MOTE_MMDS_INTERNAL_H
#define MOTE_MMDS_INTERNAL_H

#include "mmds/mmds.h"
#include "mmds/store.h"
#include "mmds/token.h"

struct mmds {
	enum mmds_version version;
	bool imds_compat;
	struct store store;
	struct tokens tokens;
	size_t answers_size; /* of all answers that wait to be read; bytes */
	struct mmds_metrics metrics;
};

#endif
