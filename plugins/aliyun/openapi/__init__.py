"""The RPC face that Alibaba's SDKs call: product OnsMqtt, version 2020-04-20 (ALIYUN: OpenAPI)."""
