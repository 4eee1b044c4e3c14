"""Why a head answered as it did."""
