#ifndef DRIVER_COMMON_H
#define DRIVER_COMMON_H

#include "host_board.h"

#define ARM_DRIVER_OK 0
typedef enum { ARM_POWER_OFF, ARM_POWER_LOW, ARM_POWER_FULL } ARM_POWER_STATE;

#endif
