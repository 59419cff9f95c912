/* dropin/smem_trans_def.h - types of MemFabric's transfer interface
 * (memfabric_hybrid 1.0), by the names that its users write. */
#ifndef BATON_DROPIN_SMEM_TRANS_DEF_H
#define BATON_DROPIN_SMEM_TRANS_DEF_H

#include <stdbool.h>
#include <stdint.h>

typedef void *smem_trans_t;

/* SENDER and RECEIVER are checked and mean nothing more: every engine here
 * sends and receives. */
typedef enum {
    SMEM_TRANS_NONE = 0,
    SMEM_TRANS_SENDER,
    SMEM_TRANS_RECEIVER,
    SMEM_TRANS_BOTH,
    SMEM_TRANS_BUTT
} smem_trans_role_t;

/* Not looked at: the engine takes the best way that there is. */
typedef enum {
    SMEMB_DATA_OP_SDMA = 1,
    SMEMB_DATA_OP_HOST_RDMA = 2,
    SMEMB_DATA_OP_HOST_TCP = 4,
    SMEMB_DATA_OP_DEVICE_RDMA = 8,
    SMEMB_DATA_OP_HOST_URMA = 16,
} smem_bm_data_op_type;

typedef struct {
    smem_trans_role_t role;
    uint32_t initTimeout; /* seconds; not needed: nothing is waited for */
    uint32_t deviceId;    /* of an NPU; not looked at                   */
    uint32_t flags;       /* 0 */
    smem_bm_data_op_type dataOpType;
    bool startConfigServer; /* serve the store when its address is ours */
} smem_trans_config_t;

/* Results; 0 is success. The last six are ours: MemFabric calls them all
 * INVALID_PARAM, which a caller cannot tell from a fault of its own. */
enum {
    SMEM_ERROR = -1,
    SMEM_INVALID_PARAM = -2000,
    SMEM_MALLOC_FAILED = -2001,
    SMEM_NOT_STARTED = -2003,
    SMEM_TIMEOUT = -2004,
    SMEM_DUPLICATED_OBJECT = -2006,
    SMEM_OBJECT_NOT_EXISTS = -2007,
    SMEM_NOT_INITIALIZED = -2008,
    SMEM_RESOURCE_IN_USE = -2009,
    SMEM_NO_SUCH_PEER = -2100,
    SMEM_OUT_OF_RANGE = -2101, /* of what is registered, here or there */
    SMEM_PEER_DEAD = -2102,
    SMEM_CANCELED = -2103,
    SMEM_UNAUTHORIZED = -2104,
    SMEM_UNSUPPORTED = -2105,
};

#endif
