// The header that host code includes; see cuda_runtime.h.
#pragma once
#include "runtime_api.h"
