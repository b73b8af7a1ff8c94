/* What callers of a network see of the runtime; C and C++. */
#ifndef KILOGRAD_STATUS_H
#define KILOGRAD_STATUS_H

#include <stddef.h>
#include <stdint.h>

/* What net_predict, net_train_step and net_load return. */
typedef enum kg_status {
  KG_OK = 0,
  KG_ERROR_NONFINITE = 1,  /* NaN or infinity arose; the state is as before the step */
  KG_ERROR_PARTIAL = 2,    /* the same, after some tensors had been updated (compiled with atomic=False) */
  KG_ERROR_LABEL = 3,      /* a class index out of range; nothing changed */
  KG_ERROR_CHECKPOINT = 4, /* a corrupt or foreign checkpoint; nothing changed */
  KG_ERROR_INPUT = 5,      /* a token id out of range; nothing changed */
  KG_ERROR_STORAGE = 6,    /* the storage failed or does not fit; the state is as before the call */
} kg_status;

/* What a checkpoint has besides the state: header and checksum (checkpoint.h). */
#define KG_CHECKPOINT_HEADER_BYTES 20u

#endif
