/* A template; what compiles is rendered with a conversation. */
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

static const char variables[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\","
    "\"content\":\"h\\u00e9 "
    "\"},{\"role\":\"assistant\",\"content\":null,\"n\":["
    "1,2.5,true],\"reasoning_content\":\"why\",\"tool_calls\":[{\"id\":\"c\","
    "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"k\":"
    "[1,{}]}}}]},{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":"
    "\"t\"}]}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
    "\"parameters\":{\"properties\":{\"k\":{\"type\":\"string\"}}}}}],"
    "\"s\":\"a,b <c>\",\"n\":3,\"d\":{\"k\":{\"x\":1}},\"bos_token\":\"<s>\","
    "\"eos_token\":\"</s>\",\"add_generation_prompt\":true}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct template *t = NULL;
    struct why why = {0};
    int rc = template_compile(&t, (const char *)data, size, &why);
    if (rc && why.code != rc) abort();
    if (rc) return 0;
    json_t *json = NULL;
    struct buf out;
    buf_init(&out, 1 << 20);
    if (json_parse(&json, variables, sizeof variables - 1, NULL)) abort();
    rc = template_render(t, json, &out, &why);
    if (rc && why.code != rc) abort();
    template_loops_over(t, "content");
    buf_fini(&out);
    json_decref(json);
    template_destroy(t);
    return 0;
}
