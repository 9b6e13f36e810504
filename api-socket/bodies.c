/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/bodies.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/guest_memory.h"
#include "base/log.h"
#include "vmm/control.h"

#define CONFIG_FILE_SIZE_MAX (1 << 20)

enum field_type {
	FIELD_STRING,  /* char * */
	FIELD_BOOL,    /* bool */
	FIELD_INTEGER, /* int64_t, between min and max */
	FIELD_CHOICE,  /* int: the index into choices */
	FIELD_ABSENT,  /* known to Firecracker; mote takes only null or the first of choices */
};

struct field {
	const char *name;
	enum field_type type;
	bool required;
	size_t offset; /* in the configuration struct */
	int64_t min;
	int64_t max;
	const char *const *choices; /* NULL-terminated */
};

static const char *const huge_pages_choices[] = {
	[HUGE_PAGES_NONE] = "None",
	[HUGE_PAGES_TRANSPARENT] = "Transparent",
	[HUGE_PAGES_2M] = "2M",
	NULL,
};
static const char *const cpu_template_choices[] = { "None", NULL };

#define AT(type, member) .offset = offsetof(struct type, member)

static const struct field boot_source_fields[] = {
	{ "kernel_image_path", FIELD_STRING, .required = true,
	  AT(boot_source_config, kernel_image_path) },
	{ "initrd_path", FIELD_STRING, AT(boot_source_config, initrd_path) },
	{ "boot_args", FIELD_STRING, AT(boot_source_config, boot_args) },
	{ NULL },
};

static const struct field machine_fields[] = {
	{ "vcpu_count", FIELD_INTEGER, .required = true, AT(machine_config, vcpu_count), .min = 1,
	  .max = CONFIG_VCPU_MAX },
	{ "mem_size_mib", FIELD_INTEGER, .required = true, AT(machine_config, mem_size_mib),
	  .min = CONFIG_MEMORY_MIN_MIB, .max = CONFIG_MEMORY_MAX_MIB },
	{ "smt", FIELD_BOOL, AT(machine_config, smt) },
	{ "track_dirty_pages", FIELD_BOOL, AT(machine_config, track_dirty_pages) },
	{ "huge_pages", FIELD_CHOICE, AT(machine_config, huge_pages),
	  .choices = huge_pages_choices },
	{ "cpu_template", FIELD_ABSENT, .choices = cpu_template_choices },
	{ NULL },
};

static const struct field serial_fields[] = {
	{ "serial_out_path", FIELD_STRING, AT(serial_config, serial_out_path) },
	{ "rate_limiter", FIELD_ABSENT },
	{ NULL },
};

static const struct field logger_fields[] = {
	{ "log_path", FIELD_STRING, AT(logger_config, log_path) },
	{ "level", FIELD_STRING, AT(logger_config, level) },
	{ "show_level", FIELD_BOOL, AT(logger_config, show_level) },
	{ "show_log_origin", FIELD_BOOL, AT(logger_config, show_log_origin) },
	{ "module", FIELD_STRING, AT(logger_config, module) },
	{ NULL },
};

static int read_integer(const json_t *value, const struct field *field, void *to, struct err *err)
{
	int64_t integer = json_integer_value(value);

	if (!json_is_integer(value))
		return err_set(err, EINVAL, "%s: an integer is expected", field->name);
	if (integer < field->min || integer > field->max)
		return err_set(err, EINVAL, "%s: %lld is not between %lld and %lld", field->name,
			       (long long)integer, (long long)field->min, (long long)field->max);
	memcpy(to, &integer, sizeof(integer));
	return 0;
}

static int read_string(const json_t *value, const struct field *field, void *to, struct err *err)
{
	char **string = to;

	if (!json_is_string(value))
		return err_set(err, EINVAL, "%s: a string is expected", field->name);
	free(*string);
	*string = strdup(json_string_value(value));
	return *string ? 0 : err_sys(err, ENOMEM, "%s", field->name);
}

static int read_choice(const json_t *value, const struct field *field, int *to, struct err *err)
{
	char known[128] = "";
	int i;

	for (i = 0; json_is_string(value) && field->choices[i]; i++) {
		if (strcmp(json_string_value(value), field->choices[i]) == 0) {
			*to = i;
			return 0;
		}
	}
	for (i = 0; field->choices[i]; i++) {
		strncat(known, i ? ", " : "", sizeof(known) - strlen(known) - 1);
		strncat(known, field->choices[i], sizeof(known) - strlen(known) - 1);
	}
	return err_set(err, EINVAL, "%s: one of %s is expected", field->name, known);
}

static int read_absent(const json_t *value, const struct field *field, struct err *err)
{
	if (field->choices && json_is_string(value) &&
	    strcmp(json_string_value(value), field->choices[0]) == 0)
		return 0;
	return err_set(err, ENOTSUP, "%s: not supported yet", field->name);
}

static int read_field(const json_t *value, const struct field *field, void *config, struct err *err)
{
	void *to = (char *)config + field->offset;

	/* null stands for a field that is not given. */
	if (json_is_null(value) && !field->required)
		return 0;
	switch (field->type) {
	case FIELD_STRING:
		return read_string(value, field, to, err);
	case FIELD_INTEGER:
		return read_integer(value, field, to, err);
	case FIELD_CHOICE:
		return read_choice(value, field, to, err);
	case FIELD_ABSENT:
		return read_absent(value, field, err);
	case FIELD_BOOL:
		if (!json_is_boolean(value))
			return err_set(err, EINVAL, "%s: true or false is expected", field->name);
		*(bool *)to = json_boolean_value(value);
		return 0;
	}
	return -EINVAL;
}

static const struct field *find_field(const struct field *fields, const char *name)
{
	for (; fields->name; fields++) {
		if (strcmp(fields->name, name) == 0)
			return fields;
	}
	return NULL;
}

static int read_fields(const json_t *body, const struct field *fields, void *config,
		       struct err *err)
{
	const char *name;
	json_t *value;

	if (!json_is_object(body))
		return err_set(err, EINVAL, "a JSON object is expected");
	/* jansson's iterators take the object without const, and do not change it. */
	json_object_foreach ((json_t *)(uintptr_t)body, name, value) {
		const struct field *field = find_field(fields, name);
		int rc;

		if (!field)
			return err_set(err, EINVAL, "%s: unknown field", name);
		rc = read_field(value, field, config, err);
		if (rc < 0)
			return rc;
	}
	for (; fields->name; fields++) {
		if (fields->required && !json_object_get(body, fields->name))
			return err_set(err, EINVAL, "%s: the field is missing", fields->name);
	}
	return 0;
}

void logger_config_free(struct logger_config *config)
{
	free(config->log_path);
	free(config->level);
	free(config->module);
	memset(config, 0, sizeof(*config));
}

json_t *body_parse(const char *text, size_t len, const char *what, struct err *err)
{
	static bool seeded;
	size_t seed = 0;
	json_error_t error;
	json_t *body;

	/* By itself jansson would open /dev/urandom, which a jailed process does not have. */
	if (!seeded && getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed))
		json_object_seed(seed | 1);
	seeded = true;
	body = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

	if (!body) {
		err_set(err, EINVAL, "%s: line %d, column %d: %s", what, error.line, error.column,
			error.text);
		return NULL;
	}
	if (!json_is_object(body)) {
		json_decref(body);
		err_set(err, EINVAL, "%s: a JSON object is expected", what);
		return NULL;
	}
	return body;
}

int body_boot_source(const json_t *body, struct boot_source_config *config, struct err *err)
{
	return read_fields(body, boot_source_fields, config, err);
}

int body_machine(const json_t *body, struct machine_config *config, struct err *err)
{
	return read_fields(body, machine_fields, config, err);
}

int body_serial(const json_t *body, struct serial_config *config, struct err *err)
{
	return read_fields(body, serial_fields, config, err);
}

int body_logger(const json_t *body, struct logger_config *config, struct err *err)
{
	enum log_level level;
	int rc = read_fields(body, logger_fields, config, err);

	if (rc == 0 && config->level && !log_level_parse(config->level, &level))
		rc = err_set(err, EINVAL,
			     "level: one of Error, Warning, Info, Debug, Trace is expected");
	return rc;
}

static int apply_boot_source(struct control *control, const json_t *body, struct err *err)
{
	struct boot_source_config config = { 0 };
	int rc = body_boot_source(body, &config, err);

	if (rc == 0)
		rc = control_set_boot_source(control, &config, err);
	boot_source_config_free(&config);
	return rc;
}

static int apply_machine(struct control *control, const json_t *body, struct err *err)
{
	struct machine_config config = control->machine_config;
	int rc = body_machine(body, &config, err);

	return rc < 0 ? rc : control_set_machine(control, &config, err);
}

static int apply_serial(struct control *control, const json_t *body, struct err *err)
{
	struct serial_config config = { 0 };
	int rc = body_serial(body, &config, err);

	if (rc == 0)
		rc = control_set_serial(control, &config, err);
	serial_config_free(&config);
	return rc;
}

static int apply_logger(struct control *control, const json_t *body, struct err *err)
{
	struct logger_config config = { 0 };
	enum log_level level;
	int rc = body_logger(body, &config, err);

	(void)control;
	if (rc == 0 && config.log_path)
		rc = log_open(config.log_path, err);
	if (rc == 0 && config.level && log_level_parse(config.level, &level))
		log_set_level(level);
	logger_config_free(&config);
	return rc;
}

static const struct section {
	const char *name;
	/* NULL: known to Firecracker, not to mote yet; only an empty list or null is taken. */
	int (*apply)(struct control *control, const json_t *body, struct err *err);
} sections[] = {
	/* In the order in which they take effect. */
	{ "logger", apply_logger },
	{ "boot-source", apply_boot_source },
	{ "machine-config", apply_machine },
	{ "serial", apply_serial },
	{ "drives", NULL },
	{ "network-interfaces", NULL },
	{ "vsock", NULL },
	{ "metrics", NULL },
	{ "mmds-config", NULL },
	{ "cpu-config", NULL },
	{ "balloon", NULL },
	{ "entropy", NULL },
	{ "pmem", NULL },
	{ "memory-hotplug", NULL },
};

#define SECTIONS (sizeof(sections) / sizeof(sections[0]))

static const struct section *find_section(const char *name)
{
	for (size_t i = 0; i < SECTIONS; i++) {
		if (strcmp(sections[i].name, name) == 0)
			return &sections[i];
	}
	return NULL;
}

static int apply_sections(struct control *control, const json_t *file, const char *path,
			  struct err *err)
{
	const char *name;
	json_t *value;
	struct err cause;

	json_object_foreach ((json_t *)(uintptr_t)file, name, value) {
		const struct section *section = find_section(name);

		if (!section)
			return err_set(err, EINVAL, "configuration file %s: %s: unknown section",
				       path, name);
		if (!section->apply && !json_is_null(value) &&
		    !(json_is_array(value) && json_array_size(value) == 0))
			return err_set(err, ENOTSUP, "configuration file %s: %s: not supported yet",
				       path, name);
	}
	for (size_t i = 0; i < SECTIONS; i++) {
		const json_t *body = json_object_get(file, sections[i].name);
		int rc;

		if (!sections[i].apply || !body || json_is_null(body))
			continue;
		rc = sections[i].apply(control, body, &cause);
		if (rc < 0)
			return err_set(err, -rc, "configuration file %s: %s: %s", path,
				       sections[i].name, cause.text);
	}
	if (!json_is_object(json_object_get(file, "boot-source")))
		return err_set(err, EINVAL,
			       "configuration file %s: boot-source: the section is missing", path);
	return 0;
}

int config_text_apply(struct control *control, const char *text, size_t len, const char *path,
		      struct err *err)
{
	struct err cause;
	json_t *file = body_parse(text, len, path, &cause);
	int rc;

	if (!file)
		return err_set(err, EINVAL, "configuration file %s", cause.text);
	rc = apply_sections(control, file, path, err);
	json_decref(file);
	return rc;
}

int config_file_apply(struct control *control, const char *path, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char *text;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, errno, "configuration file %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > CONFIG_FILE_SIZE_MAX)
		return err_set(err, EINVAL,
			       "configuration file %s: not a regular file of at most 1 MiB", path);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return err_sys(err, ENOMEM, "configuration file %s", path);
	rc = fd_pread_exact(fd, text, (size_t)st.st_size, 0);
	if (rc < 0)
		rc = err_sys(err, -rc, "configuration file %s", path);
	else
		rc = config_text_apply(control, text, (size_t)st.st_size, path, err);
	free(text);
	return rc;
}
