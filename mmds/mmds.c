/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/mmds.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "mmds/internal.h"

#define MMDS_METRIC(member) METRIC(mmds_metrics, member)
const struct metric mmds_metric_table[] = {
	MMDS_METRIC(rx_accepted),
	MMDS_METRIC(rx_accepted_err),
	MMDS_METRIC(rx_accepted_unusual),
	MMDS_METRIC(rx_bad_eth),
	MMDS_METRIC(rx_count),
	MMDS_METRIC(rx_invalid_token),
	MMDS_METRIC(rx_no_token),
	MMDS_METRIC(tx_bytes),
	MMDS_METRIC(tx_count),
	MMDS_METRIC(tx_errors),
	MMDS_METRIC(tx_frames),
	METRIC_OWN(mmds_metrics, tx_resets),
	MMDS_METRIC(connections_created),
	MMDS_METRIC(connections_destroyed),
	{ NULL },
};

int mmds_open(struct mmds **mmds, size_t size_limit, struct err *err)
{
	*mmds = calloc(1, sizeof(**mmds));
	if (!*mmds)
		return err_sys(err, ENOMEM, "metadata");
	store_init(&(*mmds)->store, size_limit);
	return 0;
}

void mmds_close(struct mmds *mmds)
{
	if (!mmds)
		return;
	store_close(&mmds->store);
	free(mmds);
}

void mmds_configure(struct mmds *mmds, enum mmds_version version, bool imds_compat)
{
	mmds->version = version;
	mmds->imds_compat = imds_compat;
}

const struct mmds_metrics *mmds_metrics(const struct mmds *mmds)
{
	return &mmds->metrics;
}

bool mmds_address_parse(const char *text, uint32_t *address)
{
	struct in_addr parsed;
	uint32_t host;

	if (inet_pton(AF_INET, text, &parsed) != 1)
		return false;
	host = ntohl(parsed.s_addr);
	*address = parsed.s_addr;
	return host >> 16 == 0xa9fe && (host >> 8 & 0xff) != 0 && (host >> 8 & 0xff) != 0xff;
}

int mmds_put(struct mmds *mmds, const json_t *data, struct err *err)
{
	return store_put(&mmds->store, data, err);
}

int mmds_patch(struct mmds *mmds, const json_t *patch, struct err *err)
{
	return store_patch(&mmds->store, patch, err);
}

char *mmds_text(const struct mmds *mmds)
{
	return mmds->store.data ? json_dumps(mmds->store.data, mmds->store.flags) : strdup("{}");
}
